"""The input of a detector: images and boxes are resized, images normalized and padded, in numpy.

This runs on the host because images have different sizes.
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
    """Height and width of an image resized to a short side of `min_size`.

    They are smaller where the long side would exceed `max_size`, or the image the height and width
    of a `canvas`; one pixel at least.
    """
    scale = min(min_size / min(height, width), max_size / max(height, width))
    if canvas is not None:
        scale = min(scale, canvas[0] / height, canvas[1] / width)
    return max(1, int(np.floor(height * scale))), max(1, int(np.floor(width * scale)))


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resizing without antialiasing, `[H, W, C] -> [height, width, C]`.

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
    """Scales boxes `[N, 4]` of an image whose height and width change from `old` to `new`.

    The ratios are float32, as in torchvision.
    """
    y, x = (np.float32(b) / np.float32(a) for a, b in zip(old, new, strict=True))
    return boxes * np.array([x, y, x, y]).astype(boxes.dtype)


def padded_shape(shapes: Sequence[Sequence[int]], multiple: int = 32) -> tuple[int, int]:
    """The smallest height and width, in multiples of `multiple`, that hold all of `shapes`."""
    height, width = np.max(np.asarray(shapes)[:, :2], axis=0)
    return int(-(-height // multiple) * multiple), int(-(-width // multiple) * multiple)


def pad(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pads `[H, W, C]` with zeros at the right and the bottom to `[height, width, C]`."""
    return np.pad(image, ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0)))


def transform(
    images: Sequence[np.ndarray],
    mean: np.ndarray,
    std: np.ndarray,
    min_size: int,
    max_size: int,
    shape: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Makes a batch `[B, H, W, C]` of images `[h, w, C]`; also returns their sizes `[B, 2]` in it.

    Args:
      images: pixels in [0, 1], of any size.
      mean: `[C]`, subtracted first.
      std: `[C]`, divided by.
      min_size: short side.
      max_size: largest long side.
      shape: height and width of the batch; the smallest that fits by default.
    """
    sizes = [resized_shape(image.shape[0], image.shape[1], min_size, max_size) for image in images]
    shape = padded_shape(sizes) if shape is None else shape
    batch = [
        pad(resize((image - mean) / std, *size), *shape)
        for image, size in zip(images, sizes, strict=True)
    ]
    return np.stack(batch), np.array(sizes, np.int32)
