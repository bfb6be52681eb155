"""Images of different sizes with their objects, on a canvas of one size."""

from __future__ import annotations

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from kdjax.data.objects import image_transform
from kdjax.data.objects.augmentation import Augmentation, augment
from kdjax.data.objects.columns import SplitObjects
from kdjax.data.splits import RecordSplit, Source, Split
from kdjax.data.statistics import channel_statistics
from kdjax.errors import UserError

MULTIPLE = 32  # of either side: the coarsest stride of a detector
_STATISTICS_IMAGES = 500

Element = dict[str, Any]  # numpy arrays and numbers


def _objects(split: Split) -> SplitObjects:
    """The objects of a split; raises `ValueError` if it has none."""
    if split.objects is None:
        raise ValueError("the images have no objects")
    return split.objects


def canvas(source: Source, data: ConfigDict) -> tuple[int, int, int]:
    """(H, W, C) of the canvas, `config.data.canvas` if it is given.

    Otherwise each side is the largest of the images of both splits, rounded up to a multiple of 32.

    Raises:
      UserError: settings of `config.data` that have no meaning for images with objects, or a split
        whose objects are all ignored.
    """
    for setting, unset, way_out in (
        ("image_size", 0, "set config.data.canvas=(height, width)"),
        ("classes", 0, "leave it at 0: an image has objects of several classes"),
        ("first_class", 0, "leave it at 0: an image has objects of several classes"),
    ):
        if data[setting] != unset:
            raise UserError(
                f"config.data.{setting}={data[setting]}: images of {data.source} have objects in "
                f"boxes; {way_out}"
            )
    if data.placement == "device":
        raise UserError(
            "config.data.placement='device': images with objects are streamed; use 'auto'"
        )
    for name, split in (("training", source.train), ("test", source.test)):
        if _objects(split).ignored.all():
            raise UserError(
                f"{data.source}: the {name} images have no objects at all to be learned or found"
            )
    if not data.canvas:
        sizes = np.concatenate([_objects(split).sizes for split in (source.train, source.test)])
        height, width = (-(-int(side) // MULTIPLE) * MULTIPLE for side in sizes.max(0))
        return height, width, 3
    if len(data.canvas) != 2 or any(side % MULTIPLE for side in data.canvas):
        raise UserError(
            f"config.data.canvas={tuple(data.canvas)}: give height and width in multiples of "
            f"{MULTIPLE}, the coarsest stride of detectors"
        )
    return (*data.canvas, 3)


def statistics(split: RecordSplit) -> tuple[np.ndarray, np.ndarray]:
    """`channel_statistics` of at most 500 images, evenly spaced, of every fourth row and column."""
    count = len(split.labels)
    chosen = np.linspace(0, count - 1, min(count, _STATISTICS_IMAGES)).astype(int)
    parts = [split.records[int(index)][::4, ::4].reshape(-1, 3) for index in chosen]
    return channel_statistics(np.concatenate(parts)[:, None, None])


class TrainElement:
    """(image number, position in the epoch) -> an image with its objects, augmented.

    Random numbers are keyed by the seed and the position. The result has 'image' uint8 `[H, W, 3]`,
    'sizes' int32 `[2]` (height and width without padding), 'boxes' float32 `[G, 4]`, 'classes'
    int32 `[G]` from 1 on, 'valid' bool `[G]`, 'label' int32 `[]` (zero) and 'index' int32 `[]`.

    Args:
      split: with objects.
      shape: (H, W, 3) of the canvas.
      augmentation: of images and boxes.
      seed: the seed and the epoch.
    """

    def __init__(
        self,
        split: RecordSplit,
        shape: tuple[int, int, int],
        augmentation: Augmentation,
        seed: tuple[int, int],
    ):
        self.split = split
        self.shape = shape
        self.augmentation = augmentation
        self.seed = seed
        self.room = _objects(split).most

    def __call__(self, number_and_place: np.ndarray) -> Element:
        index, place = map(int, number_and_place)
        rng = np.random.default_rng([*self.seed, place])
        boxes, labels, ignored = _objects(self.split).of(index)
        pixels, boxes, kept = augment(
            _pixels(self.split, index), boxes[~ignored], self.augmentation, rng, self.shape[:2]
        )
        boxes, labels = boxes[kept], labels[~ignored][kept]
        missing = self.room - len(labels)
        return _element(pixels, self.shape, index) | {
            "boxes": np.pad(boxes.astype(np.float32), ((0, missing), (0, 0))),
            "classes": np.pad(labels, (0, missing)),
            "valid": np.arange(self.room) < len(labels),
        }


class EvaluationElement:
    """Image number -> 'image', 'sizes', 'label' and 'index' as of `TrainElement`, not augmented.

    Args:
      split: with objects.
      shape: (H, W, 3) of the canvas.
      augmentation: images are resized to the largest of its sizes.
    """

    def __init__(self, split: RecordSplit, shape: tuple[int, int, int], augmentation: Augmentation):
        self.split = split
        self.shape = shape
        self.augmentation = augmentation

    def __call__(self, index: int) -> Element:
        index = int(index)
        pixels = _pixels(self.split, index)
        (height, width), settings = pixels.shape[:2], self.augmentation
        new = image_transform.resized_shape(
            height, width, max(settings.min_sizes), settings.max_size, self.shape[:2]
        )
        return _element(image_transform.resize(pixels, *new), self.shape, index)


def placed(split: RecordSplit, index: int, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The boxes `[n, 4]` and labels `[n]` of an image of `size` `[2]` on the canvas.

    Ignored objects are left out.
    """
    objects = _objects(split)
    boxes, labels, ignored = objects.of(index)
    boxes = image_transform.scale_boxes(boxes, objects.sizes[index], size)
    return boxes[~ignored], labels[~ignored]


def _pixels(split: RecordSplit, index: int) -> np.ndarray:
    """A decoded image, float32.

    Raises:
      UserError: it cannot be read, or its size is not that of its annotation.
    """
    files: Any = split.records  # of images with objects they have `where`
    pixels = files[index]
    height, width = map(int, _objects(split).sizes[index])
    if pixels.shape[:2] != (height, width):
        raise UserError(
            f"{files.where(index)}: {pixels.shape[1]}x{pixels.shape[0]} pixels, but its "
            f"annotation is for {width}x{height}"
        )
    return pixels.astype(np.float32)


def _element(pixels: np.ndarray, shape: tuple[int, int, int], index: int) -> Element:
    image = np.zeros(shape, np.uint8)
    height, width = pixels.shape[:2]
    image[:height, :width] = np.rint(pixels)
    return {
        "image": image,
        "sizes": np.array([height, width], np.int32),
        "label": np.int32(0),
        "index": np.int32(index),
    }
