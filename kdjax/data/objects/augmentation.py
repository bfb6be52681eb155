"""Joint augmentation of images and boxes, on the host.

Functions take pixels `[H, W, C]` and boxes `[n, 4]`, and return both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kdjax.data.objects import image_transform


class Augmentation(NamedTuple):
    """Settings of the augmentation of training images: crop, flip and scale, in this order.

    Attributes:
      crop: smallest side of a crop, as a share of the image's; 1 for no crop.
      flip: probability of a left-right flip.
      min_sizes: short sides in pixels, from which one is drawn.
      max_size: largest long side in pixels.
    """

    crop: float
    flip: float
    min_sizes: Sequence[int]
    max_size: int


def flip(pixels: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flips an image and its boxes left to right."""
    width = pixels.shape[1]
    left, top, right, bottom = boxes.T
    return pixels[:, ::-1], np.stack([width - right, top, width - left, bottom], 1)


def crop(
    pixels: np.ndarray, boxes: np.ndarray, window: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Crops an image and its boxes to a window.

    Args:
      pixels: `[H, W, C]`.
      boxes: `[n, 4]`.
      window: x1 y1 x2 y2 in whole pixels.

    Returns:
      Pixels, boxes `[n, 4]`, and `[n]` whether the center of an object is in the window; of other
      objects too little may be visible.
    """
    x1, y1, x2, y2 = window
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centers >= [x1, y1]) & (centers < [x2, y2])).all(1)
    shifted = boxes - np.array([x1, y1, x1, y1], boxes.dtype)
    limits = np.array([x2 - x1, y2 - y1] * 2, boxes.dtype)
    return pixels[y1:y2, x1:x2], np.clip(shifted, 0, limits), inside


def scale(
    pixels: np.ndarray,
    boxes: np.ndarray,
    min_size: int,
    max_size: int,
    canvas: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Resizes an image and its boxes to `image_transform.resized_shape`."""
    height, width = pixels.shape[:2]
    new = image_transform.resized_shape(height, width, min_size, max_size, canvas)
    resized = image_transform.resize(pixels, *new)
    return resized, image_transform.scale_boxes(boxes, (height, width), new)


def random_window(
    rng: np.random.Generator, height: int, width: int, smallest: float
) -> tuple[int, int, int, int]:
    """A random window; each side is drawn from `smallest` ... 1 of the image's side."""
    sides = [max(1, round(rng.uniform(smallest, 1) * side)) for side in (height, width)]
    top, left = (
        int(rng.integers(side - part + 1))
        for side, part in zip((height, width), sides, strict=True)
    )
    return left, top, left + sides[1], top + sides[0]


def augment(
    pixels: np.ndarray,
    boxes: np.ndarray,
    settings: Augmentation,
    rng: np.random.Generator,
    canvas: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Augments an image of float pixels and its boxes; also returns `[n]` which objects are left.

    Args:
      pixels: `[H, W, C]`.
      boxes: `[n, 4]`.
      settings: of the augmentation.
      rng: random number generator.
      canvas: largest height and width of the result; None for no limit.
    """
    kept = np.ones(len(boxes), bool)
    if settings.crop < 1:
        window = random_window(rng, pixels.shape[0], pixels.shape[1], settings.crop)
        pixels, boxes, kept = crop(pixels, boxes, window)
    if rng.uniform() < settings.flip:
        pixels, boxes = flip(pixels, boxes)
    min_size = settings.min_sizes[int(rng.integers(len(settings.min_sizes)))]
    return *scale(pixels, boxes, min_size, settings.max_size, canvas), kept
