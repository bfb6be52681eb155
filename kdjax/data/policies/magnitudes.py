"""How strong operations are: torchvision's bins from 'not at all' to the strongest."""

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

    In double precision. torchvision's are float32, which moves a level of a blend by one here and
    there, and makes one whole translation of TrivialAugment's a pixel shorter (15.999999 of 16).

    Args:
      shear: the strongest slope.
      translate: the furthest along x and along y, in pixels.
      degrees: the largest angle.
      enhance: the furthest from 1 of the factor of brightness, color, contrast and sharpness.
      bits: how many bits Posterize keeps at first, and how many fewer at the end.
    """
    first, fewer = bits
    ends = dict(zip(GEOMETRIC, (shear, shear, *translate, degrees), strict=True))
    ends |= dict.fromkeys(BLENDS, enhance)
    magnitudes = {name: np.linspace(0.0, end, count) for name, end in ends.items()}
    magnitudes["Posterize"] = first - np.round(np.arange(count) / ((count - 1) / fewer))
    magnitudes["Solarize"] = np.linspace(255.0, 0.0, count)
    return magnitudes


def moderate(count: int, height: int, width: int) -> dict[str, np.ndarray]:
    """Those of AutoAugment and RandAugment."""
    part = RAND_AUGMENT_TRANSLATION
    return bins(
        count,
        shear=0.3,
        translate=(part * width, part * height),
        degrees=30.0,
        enhance=0.9,
        bits=(8, 4),
    )
