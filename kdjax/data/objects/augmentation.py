"""Images changed together with their boxes, on the host.

Functions take pixels `[H, W, C]` and boxes `[n, 4]`, and return both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kdjax.data.objects import image_transform


class Augmentation(NamedTuple):
    """What a training image goes through, in this order.

    Attributes:
      crop: smallest share of either side that is left; 1 leaves the image whole.
      flip: probability that left and right change places.
      min_sizes: short sides in pixels, of which one is drawn.
      max_size: long side in pixels, at most.
    """

    crop: float
    flip: float
    min_sizes: Sequence[int]
    max_size: int


def flip(pixels: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left and right change places."""
    width = pixels.shape[1]
    left, top, right, bottom = boxes.T
    return pixels[:, ::-1], np.stack([width - right, top, width - left, bottom], 1)


def crop(
    pixels: np.ndarray, boxes: np.ndarray, window: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a window shows; boxes are cut with it.

    Args:
      pixels: `[H, W, C]`.
      boxes: `[n, 4]`.
      window: x1 y1 x2 y2 in whole pixels.

    Returns:
      pixels, boxes `[n, 4]`, and `[n]` which objects have their center in the window: of others
      too little may be seen.
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
    """Resized to `image_transform.resized_shape`."""
    height, width = pixels.shape[:2]
    new = image_transform.resized_shape(height, width, min_size, max_size, canvas)
    resized = image_transform.resize(pixels, *new)
    return resized, image_transform.scale_boxes(boxes, (height, width), new)


def random_window(
    rng: np.random.Generator, height: int, width: int, smallest: float
) -> tuple[int, int, int, int]:
    """A window with sides of `smallest` to 1 of the image's, drawn one by one."""
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
    """An image of float pixels and its boxes, augmented; and `[n]` which objects are left.

    Args:
      pixels: `[H, W, C]`.
      boxes: `[n, 4]`.
      settings: of the augmentation.
      rng: what it is drawn with.
      canvas: height and width that the result is to fit into; None: any.
    """
    kept = np.ones(len(boxes), bool)
    if settings.crop < 1:
        window = random_window(rng, pixels.shape[0], pixels.shape[1], settings.crop)
        pixels, boxes, kept = crop(pixels, boxes, window)
    if rng.uniform() < settings.flip:
        pixels, boxes = flip(pixels, boxes)
    min_size = settings.min_sizes[int(rng.integers(len(settings.min_sizes)))]
    return *scale(pixels, boxes, min_size, settings.max_size, canvas), kept
