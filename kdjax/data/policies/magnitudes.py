"""Magnitudes of operations: torchvision's bins, from the identity to the strongest."""

import numpy as np

GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
BLENDS = ("Brightness", "Color", "Contrast", "Sharpness")
PLAIN = ("AutoContrast", "Equalize")  # that have no magnitude
RAND_AUGMENT_TRANSLATION = 150.0 / 331.0  # of the image's side; AutoAugment's too


def bins(
    count: int,
    *,
    shear: float,
    translate: tuple[float, float],
    degrees: float,
    enhance: float,
    bits: tuple[int, int],
) -> dict[str, np.ndarray]:
    """`count` magnitudes [count] of every operation that has any, by name, without signs.

    They are float64. torchvision's are float32, which changes some levels of blends by one, and
    shortens one translation of TrivialAugment by a pixel (15.999999 for 16).

    Args:
      shear: the strongest slope.
      translate: the largest translations along x and along y, in pixels.
      degrees: the largest angle.
      enhance: the largest difference from 1 of factors of brightness, color, contrast and
        sharpness.
      bits: the bits that Posterize keeps in the first bin, and how many fewer in the last one.
    """
    first, fewer = bits
    ends = dict(zip(GEOMETRIC, (shear, shear, *translate, degrees), strict=True))
    ends |= dict.fromkeys(BLENDS, enhance)
    magnitudes = {name: np.linspace(0.0, end, count) for name, end in ends.items()}
    magnitudes["Posterize"] = first - np.round(np.arange(count) / ((count - 1) / fewer))
    magnitudes["Solarize"] = np.linspace(255.0, 0.0, count)
    return magnitudes


def moderate(count: int, height: int, width: int) -> dict[str, np.ndarray]:
    """The magnitudes of AutoAugment and RandAugment."""
    part = RAND_AUGMENT_TRANSLATION
    return bins(
        count,
        shear=0.3,
        translate=(part * width, part * height),
        degrees=30.0,
        enhance=0.9,
        bits=(8, 4),
    )
