"""Mean and standard deviation of pixels."""

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
    """`channel_statistics` of all pixels of several arrays uint8 [..., C], given one by one.

    Sums are exact, so that the result does not depend on how the pixels are divided into arrays.
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
