"""The input of a detector: images normalized, resized and padded, their boxes with them.

Host code, in numpy: images come in all sizes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Size = Sequence[int] | np.ndarray  # height and width


def resized_shape(
    height: int,
    width: int,
    min_size: int,
    max_size: int,
    canvas: tuple[int, int] | None = None,
) -> tuple[int, int]:
    """Height and width with a short side of `min_size`, or a long one of `max_size` if less.

    Less again where a `canvas` of this height and width does not hold that; one pixel at least.
    """
    scale = min(min_size / min(height, width), max_size / max(height, width))
    if canvas is not None:
        scale = min(scale, canvas[0] / height, canvas[1] / width)
    return max(1, int(np.floor(height * scale))), max(1, int(np.floor(width * scale)))


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear, pixel centers at halves, no antialiasing: `[H, W, C] -> [height, width, C]`.

    Source: `torch.nn.functional.interpolate`, `align_corners=False`.
    """
    return _resize_axis(_resize_axis(image, height, 0), width, 1)


def _resize_axis(image: np.ndarray, size: int, axis: int) -> np.ndarray:
    old = image.shape[axis]
    if size == old:
        return image
    position = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
    low = np.floor(position).astype(int)
    shape = [1] * image.ndim
    shape[axis] = size
    fraction = (position - low).astype(image.dtype).reshape(shape)
    below = np.take(image, low, axis)
    return below + fraction * (np.take(image, np.minimum(low + 1, old - 1), axis) - below)


def scale_boxes(boxes: np.ndarray, old: Size, new: Size) -> np.ndarray:
    """Boxes `[N, 4]` of an image whose height and width change from `old` to `new`.

    The ratios are float32, as torchvision's.
    """
    y, x = (np.float32(b) / np.float32(a) for a, b in zip(old, new, strict=True))
    return boxes * np.array([x, y, x, y]).astype(boxes.dtype)


def padded_shape(shapes: Sequence[Sequence[int]], multiple: int = 32) -> tuple[int, int]:
    """The smallest height and width, multiples of `multiple`, that hold all of `shapes`."""
    height, width = np.max(np.asarray(shapes)[:, :2], axis=0)
    return int(-(-height // multiple) * multiple), int(-(-width // multiple) * multiple)


def pad(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """`[H, W, C] -> [height, width, C]`, zeros at the right and at the bottom."""
    return np.pad(image, ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0)))


def transform(
    images: Sequence[np.ndarray],
    mean: np.ndarray,
    std: np.ndarray,
    min_size: int,
    max_size: int,
    shape: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """A batch `[B, H, W, C]` from images `[h, w, C]` of 0 to 1, and their sizes `[B, 2]` in it.

    Args:
      images: of any size.
      mean: `[C]`, subtracted first.
      std: `[C]`, divided by.
      min_size: short side.
      max_size: long side at most.
      shape: height and width of the batch; the smallest by default.
    """
    sizes = [resized_shape(image.shape[0], image.shape[1], min_size, max_size) for image in images]
    shape = padded_shape(sizes) if shape is None else shape
    batch = [
        pad(resize((image - mean) / std, *size), *shape)
        for image, size in zip(images, sizes, strict=True)
    ]
    return np.stack(batch), np.array(sizes, np.int32)
