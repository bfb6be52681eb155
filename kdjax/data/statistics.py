"""Mean and standard deviation of pixels."""

import numpy as np


def channel_statistics(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of uint8 [N, H, W, C] per channel.

    Returns:
      float32 [C] and [C], in units of [0, 1]. A constant channel gets the deviation 1/255, one
      gray level, so that dividing by it is safe.
    """
    total = np.zeros(pixels.shape[-1])
    squares = np.zeros(pixels.shape[-1])
    for start in range(0, len(pixels), 1000):
        chunk = pixels[start : start + 1000].reshape(-1, pixels.shape[-1]).astype(np.float64)
        total += chunk.sum(axis=0)
        squares += np.einsum("nc,nc->c", chunk, chunk)
    count = pixels.size // pixels.shape[-1]
    mean = total / count
    std = np.maximum(np.sqrt(np.maximum(squares / count - mean**2, 0)), 1.0)
    return (mean / 255).astype(np.float32), (std / 255).astype(np.float32)
