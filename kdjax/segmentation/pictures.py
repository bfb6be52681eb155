"""Masks drawn over images."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np

from kdjax.data.splits import IGNORED

_GOLDEN = 0.618034  # of a turn: hues of successive classes differ widely


def colors(num_classes: int) -> np.ndarray:
    """A color for every class, uint8 `[num_classes, 3]`."""
    turns = [(0.58 + number * _GOLDEN) % 1 for number in range(num_classes)]
    values = [
        colorsys.hsv_to_rgb(turn, 0.95 - 0.35 * (number % 3 == 1), 1 - 0.35 * (number % 3 == 2))
        for number, turn in enumerate(turns)
    ]
    return np.rint(255 * np.array(values)).astype(np.uint8)


def overlaid(image: np.ndarray, mask: np.ndarray, num_classes: int) -> np.ndarray:
    """An image with the classes of its pixels as colors; ignored pixels are black.

    Args:
      image: uint8 `[H, W, 1 or 3]`.
      mask: integers `[H, W]`.
      num_classes: number of classes.

    Returns:
      uint8 `[H, W, 3]`
    """
    table = np.zeros((256, 3), np.float32)
    table[:num_classes] = colors(num_classes)
    blended = 0.4 * np.broadcast_to(image, (*mask.shape, 3)) + 0.6 * table[mask]
    blended[mask == IGNORED] = 0
    return np.rint(blended).astype(np.uint8)


def drawn(
    image: np.ndarray, logits: np.ndarray, mask: np.ndarray, class_names: Sequence[str]
) -> tuple[np.ndarray, str]:
    """`Method.draw`: the image, its mask and the prediction, side by side.

    The caption has the intersection over union, in percent, of every class in mask or prediction.
    """
    count, predicted = len(class_names), logits.argmax(-1)
    valid = mask != IGNORED
    texts = []
    for number, name in enumerate(class_names):
        true_pixels, predicted_pixels = (mask == number) & valid, (predicted == number) & valid
        union = (true_pixels | predicted_pixels).sum()
        if union:
            intersection = (true_pixels & predicted_pixels).sum()
            texts.append(f"{name} {100 * intersection / union:.0f}")
    panels = (
        np.broadcast_to(image, (*mask.shape, 3)),
        overlaid(image, mask, count),
        overlaid(image, predicted, count),
    )
    return np.concatenate(panels, axis=1), "IoU %: " + ", ".join(texts)
