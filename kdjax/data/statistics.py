"""Mean and standard deviation of pixels."""

from collections.abc import Iterable

import numpy as np


def channel_statistics(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of uint8 [N, H, W, C] per channel.

    Returns:
      float32 [C] and [C], in units of [0, 1]. A constant channel gets the deviation 1/255, one
      gray level, so that dividing by it is safe.
    """
    return statistics_of_parts(
        pixels[start : start + 1000] for start in range(0, len(pixels), 1000)
    )


def statistics_of_parts(parts: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """`channel_statistics` of all pixels of several arrays uint8 [..., C], which come one by one.

    Their sums are exact: the same pixels in other parts have the same statistics.
    """
    count, total, squares = 0, np.zeros(()), np.zeros(())
    for part in parts:
        flat = part.reshape(-1, part.shape[-1]).astype(np.float64)
        count += len(flat)
        total = total + flat.sum(axis=0)
        squares = squares + np.einsum("nc,nc->c", flat, flat)
    mean = total / count
    std = np.maximum(np.sqrt(np.maximum(squares / count - mean**2, 0)), 1.0)
    return (mean / 255).astype(np.float32), (std / 255).astype(np.float32)
