"""Images with masks (the class of every pixel) on a canvas of one size."""

import math
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from kdjax.data import decoding
from kdjax.data.available_memory import check_fits
from kdjax.data.splits import IGNORED, ArraySplit, Source, Split
from kdjax.data.statistics import statistics_of_parts
from kdjax.errors import UserError

_STATISTICS_IMAGES = 500


def class_table(num_classes: int, ignored: int = IGNORED, first: int = 0) -> np.ndarray:
    """Lookup table of mask values: int16 `[256]`, a class, `IGNORED`, or -1 if unused.

    Args:
      num_classes: number of classes, at most 255.
      ignored: the value of ignored pixels.
      first: the value of class 0.
    """
    table = np.full(256, -1, np.int16)
    table[first : first + num_classes] = np.arange(num_classes)
    table[ignored] = IGNORED
    return table


def translated(mask: np.ndarray, table: np.ndarray, where: str) -> np.ndarray:
    """Translates the values of a mask to classes.

    Args:
      mask: uint8, any shape.
      table: of `class_table`.
      where: file or array, the start of the message.

    Raises:
      UserError: a value without a class.
    """
    classes = table[mask]
    if (classes < 0).any():
        wrong = int(mask[classes < 0][0])
        known = np.flatnonzero((table >= 0) & (table != IGNORED))
        raise UserError(
            f"{where}: value {wrong} is no class; there are {known.min()}..{known.max()}, and "
            f"{int(np.flatnonzero(table == IGNORED)[0])} for pixels that count nowhere "
            "(config.data.ignored)"
        )
    return classes.astype(np.uint8)


def canvas(source: Source, data: ConfigDict) -> tuple[int, int, int]:
    """(H, W, C) of the canvas: `config.data.canvas`, or the largest image.

    Raises:
      UserError: settings of `config.data` that have no meaning for images with masks.
    """
    for setting, unset, way_out in (
        ("image_size", 0, "set config.data.canvas=(height, width)"),
        ("classes", 0, "leave it at 0: every pixel has a class"),
        ("first_class", 0, "leave it at 0: every pixel has a class"),
    ):
        if data[setting] != unset:
            raise UserError(
                f"config.data.{setting}={data[setting]}: images of {data.source} have masks; "
                f"{way_out}"
            )
    if data.canvas and len(data.canvas) != 2:
        raise UserError(f"config.data.canvas={tuple(data.canvas)}: give height and width")
    splits = (source.train, source.test)
    channels = {_channels(split) for split in splits}
    if len(channels) > 1:
        raise UserError(f"{data.source}: images of train and test have {channels} channels")
    if data.canvas:
        return (*data.canvas, channels.pop())
    sizes = np.array([size for split in splits for size in _sizes(split)])
    height, width = map(int, sizes.max(0))
    return height, width, channels.pop()


def _channels(split: Split) -> int:
    return split.images.shape[-1] if isinstance(split, ArraySplit) else 3


def _sizes(split: Split) -> list[tuple[int, int]]:
    if isinstance(split, ArraySplit):
        _, height, width, _ = split.images.shape
        return [(height, width)]
    files: Any = split.records  # of images with masks they have `size`
    return [files.size(index) for index in range(len(split.labels))]


class CanvasPairs:
    """Images and masks of a split on a canvas of one size, made on access.

    Pairs that are larger are scaled down; smaller ones are padded at the bottom and to the right,
    images with black and masks with `IGNORED`. Images are scaled bilinearly with antialiasing,
    masks to the nearest pixel; nothing is enlarged.

    Args:
      split: with masks.
      shape: (H, W, C) of the canvas.
    """

    def __init__(self, split: Split, shape: tuple[int, int, int]):
        if split.masks is None:
            raise ValueError("the images have no masks")
        self.images = split[0]
        self.masks = split.masks
        self.shape = shape

    def __len__(self) -> int:
        return len(self.masks)

    def __call__(self, index: int) -> dict[str, Any]:
        """'image' uint8 [H, W, C], 'masks' uint8 [H, W], 'sizes' int32 [2], 'label', 'index'.

        Raises:
          UserError: a file is unreadable, or a mask has another size than its image.
        """
        index = int(index)
        pixels, mask = self.images[index], self.masks[index]
        if pixels.shape[:2] != mask.shape:
            masks = self.masks
            where = f"masks[{index}]" if isinstance(masks, np.ndarray) else masks.where(index)
            raise UserError(
                f"{where}: the mask has {mask.shape[0]}x{mask.shape[1]} "
                f"pixels, its image {pixels.shape[0]}x{pixels.shape[1]}; make one as large as the "
                "other"
            )
        pixels, mask = _fitted(pixels, mask, *self.shape[:2])
        (rows, columns), image = mask.shape, np.zeros(self.shape, np.uint8)
        classes = np.full(self.shape[:2], IGNORED, np.uint8)
        image[:rows, :columns], classes[:rows, :columns] = pixels, mask
        return {
            "image": image,
            "masks": classes,
            "sizes": np.array([rows, columns], np.int32),
            "label": np.int32(0),
            "index": np.int32(index),
        }


def pair_bytes(shape: tuple[int, int, int]) -> int:
    """Bytes of an image and its mask on a canvas (H, W, C)."""
    return math.prod((*shape[:2], shape[-1] + 1))


def held(split: Split, shape: tuple[int, int, int]) -> ArraySplit:
    """The pairs of `CanvasPairs` as arrays in memory.

    Args:
      split: with masks.
      shape: (H, W, C) of the canvas.

    Raises:
      UserError: the memory does not hold it, or as `CanvasPairs`.
    """
    count, pairs = len(split.labels), CanvasPairs(split, shape)
    if isinstance(split, ArraySplit) and split.images.shape[1:] == shape:
        sizes = np.tile(np.array([shape[:2]], np.int32), (count, 1))
        return split._replace(sizes=sizes)
    check_fits(
        count * pair_bytes(shape),
        f"config.data.canvas: {count} images {list(shape)} with masks held in memory",
        "set config.data.placement='stream', or a smaller config.data.canvas",
    )
    images = np.zeros((count, *shape), np.uint8)
    masks = np.zeros((count, *shape[:2]), np.uint8)
    sizes = np.zeros((count, 2), np.int32)

    def fill(index: int) -> None:
        pair = pairs(index)
        images[index], masks[index], sizes[index] = pair["image"], pair["masks"], pair["sizes"]

    with decoding.threads() as threads:
        list(threads.map(fill, range(count)))
    return ArraySplit(images, split.labels, masks, sizes)


def check_counted(train: ArraySplit, test: ArraySplit, source: str) -> None:
    """Checks that not all pixels of a split are ignored.

    Raises:
      UserError: all pixels of a split are ignored.
    """
    for name, split in (("training", train), ("test", test)):
        if (np.asarray(split.masks) == IGNORED).all():
            raise UserError(
                f"{source}: no pixel of the {name} masks has a class, all are ignored; check "
                "config.data.ignored and the masks"
            )


def _fitted(
    pixels: np.ndarray, mask: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    scale = min(height / mask.shape[0], width / mask.shape[1])
    if scale >= 1:
        return pixels, mask
    size = (
        max(1, min(width, round(scale * mask.shape[1]))),
        max(1, min(height, round(scale * mask.shape[0]))),
    )
    planes = [
        np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR))
        for plane in np.moveaxis(np.ascontiguousarray(pixels), -1, 0)
    ]
    mask = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    return np.stack(planes, axis=-1), mask


def statistics(split: Split, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """`channel_statistics` of at most 500 images, evenly spaced, without their padding.

    Args:
      split: with masks, of files or of `held`.
      shape: (H, W, C) of the canvas.
    """
    count, pairs = len(split.labels), CanvasPairs(split, shape)
    chosen = np.linspace(0, count - 1, min(count, _STATISTICS_IMAGES)).astype(int)

    def unpadded(index: int) -> np.ndarray:
        if isinstance(split, ArraySplit) and split.sizes is not None:
            image, (rows, columns) = split.images[index], split.sizes[index]
        else:
            pair = pairs(index)
            image, (rows, columns) = pair["image"], pair["sizes"]
        return image[:rows, :columns]

    with decoding.threads() as threads:
        return statistics_of_parts(threads.map(unpadded, chosen))
