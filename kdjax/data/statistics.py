"""Mean and standard deviation of pixels."""

import math
from collections.abc import Iterable

import numpy as np


def channel_statistics(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of uint8 [N, H, W, C] per channel.

    Returns:
      float32 [C] and [C], in units of [0, 1]. The deviation of a constant channel is set to 1/255,
      one gray level, so that it can be divided by.
    """
    return statistics_of_parts(
        pixels[start : start + 1000] for start in range(0, len(pixels), 1000)
    )


def statistics_of_parts(parts: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """`channel_statistics` of all pixels of several arrays uint8 [N, ..., C], given one by one.

    Sums are exact, so that the result does not depend on how the pixels are divided into arrays.
    """
    count, total, squares = 0, np.zeros(()), np.zeros(())
    for part in parts:
        channels = part.shape[-1]
        count += part.size // channels
        # Sums of whole rows first: the axis of channels alone is too short to be summed fast.
        rows = part.reshape(part.shape[0], math.prod(part.shape[1:]))
        total = total + _by_channel(rows, channels)
        squares = squares + _by_channel(np.square(rows, dtype=np.uint16), channels)
    mean = total / count
    std = np.maximum(np.sqrt(np.maximum(squares / count - mean**2, 0)), 1.0)
    return (mean / 255).astype(np.float32), (std / 255).astype(np.float32)


def _by_channel(rows: np.ndarray, channels: int) -> np.ndarray:
    """Exact sums `[C]` of integers `[N, ... * C]`."""
    return rows.sum(axis=0, dtype=np.uint64).reshape(-1, channels).sum(axis=0)
