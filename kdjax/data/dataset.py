"""`load(config)`: the subset of a source that a config names, in memory or streamed."""

import math
import numbers
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from kdjax.data import decoding, images, masks
from kdjax.data.augment import AUGMENTATIONS
from kdjax.data.available_memory import check_fits
from kdjax.data.objects import canvas as objects_canvas
from kdjax.data.sources import open_source
from kdjax.data.splits import ArraySplit, RecordSplit, Source, Split
from kdjax.data.statistics import channel_statistics
from kdjax.data.subset import subset
from kdjax.errors import UserError

DEVICE_BYTES = 2**30
STATISTICS_IMAGES = 2000
_PLACEMENTS = ("auto", "device", "stream")


class Dataset(NamedTuple):
    """A data set, ready to train on.

    Attributes:
      name: of the source.
      train, test: both `ArraySplit` (held on the device) or both `RecordSplit` (streamed).
      class_names: of the classes in use.
      image_shape: (H, W, C) of the networks' input.
      mean, std: float32 [C], in units of [0, 1], of the training images in use unless given.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean: np.ndarray
    std: np.ndarray

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def has_masks(self) -> bool:
        """Whether images have masks, the class of every pixel, in place of a class."""
        return self.train.masks is not None

    @property
    def has_objects(self) -> bool:
        """Whether images have objects, in boxes, in place of a class."""
        return self.train.objects is not None


def load(config: ConfigDict) -> Dataset:
    """Opens `config.data.source` and applies the other settings of `config.data`.

    Images are held on the device if they all have one size (or `image_size` is set), train and test
    together take at most 1 GiB, and the augmentation crops no images while they are decoded;
    otherwise they are streamed. Images with masks are placed on a canvas of one size, and streamed
    if train and test take more than 1 GiB. `config.data.placement` overrides the rule.

    Args:
      config: ConfigDict with a section `data`: source, dir, layout, train_fraction, subset_seed,
        first_class, classes, image_size, canvas, ignored, bad_boxes, augmentation, placement,
        mean, std.

    Raises:
      UserError: a setting is out of range or impossible for this source, or the data are missing
        or malformed.
    """
    data = config.data
    _check_settings(data)
    source = subset(open_source(data), data)
    if source.train.masks is not None:
        return _with_masks(source, data)
    if source.train.objects is not None:
        return _streamed_with_objects(source, data)
    if data.canvas:
        raise UserError(
            f"config.data.canvas={tuple(data.canvas)} is for images with masks or objects, which "
            f"{data.source} does not have; leave it at ()"
        )
    stored = _stored_shape(source, data.image_size)
    _check_one_fits(stored, data)
    count = len(source.train.labels) + len(source.test.labels)
    train: Split
    test: Split
    if _placed_on_device(data, stored, count) and stored is not None:
        shape = stored
        train, test = _as_arrays(source.train, shape), _as_arrays(source.test, shape)
    else:
        shape = _streamed_shape(stored, data)
        train, test = _as_records(source.train), _as_records(source.test)
    if data.mean:
        mean, std = _given_statistics(data, shape[-1])
    elif isinstance(train, ArraySplit):
        mean, std = channel_statistics(train.images)
    else:
        mean, std = channel_statistics(_sample(train, shape[0], data.subset_seed))
    return Dataset(source.name, train, test, source.class_names, shape, mean, std)


def _with_masks(source: Source, data: ConfigDict) -> Dataset:
    """A data set of images with masks, on a canvas of one size."""
    shape, splits = masks.canvas(source, data), (source.train, source.test)
    size = sum(len(split.labels) for split in splits) * masks.pair_bytes(shape)
    train: Split
    test: Split
    if data.placement == "device" or (data.placement == "auto" and size <= DEVICE_BYTES):
        train, test = masks.held(source.train, shape), masks.held(source.test, shape)
        masks.check_counted(train, test, data.source)
    else:
        train, test = _as_records(source.train), _as_records(source.test)
    mean, std = _given_statistics(data, shape[-1]) if data.mean else masks.statistics(train, shape)
    return Dataset(source.name, train, test, source.class_names, shape, mean, std)


def _streamed_with_objects(source: Source, data: ConfigDict) -> Dataset:
    """A data set of images with objects, which are resized to one canvas when they are loaded."""
    shape = objects_canvas.canvas(source, data)
    train, test = _as_records(source.train), _as_records(source.test)
    mean, std = (
        _given_statistics(data, shape[-1]) if data.mean else objects_canvas.statistics(train)
    )
    return Dataset(source.name, train, test, source.class_names, shape, mean, std)


def _check_settings(data: ConfigDict) -> None:
    crops_on_host = AUGMENTATIONS[data.augmentation].crop is not None
    if data.placement not in _PLACEMENTS:
        raise UserError(
            f"config.data.placement={data.placement!r} is unknown; "
            f"choose from {', '.join(_PLACEMENTS)}"
        )
    if data.placement == "device" and crops_on_host:
        raise UserError(
            "config.data.placement='device' cannot do config.data.augmentation="
            f"{data.augmentation!r}, which crops where images are decoded; use placement='stream'"
        )
    if not 0 < data.train_fraction <= 1:
        raise UserError(f"config.data.train_fraction={data.train_fraction}: must be in (0, 1]")
    if data.image_size < 0:
        raise UserError(f"config.data.image_size={data.image_size}: must be 0 (as stored) or more")
    if bool(data.mean) != bool(data.std):
        raise UserError("config.data.mean and config.data.std: give both or none")
    if data.subset_seed < 0:
        raise UserError(f"config.data.subset_seed={data.subset_seed}: must not be negative")


def _given_statistics(data: ConfigDict, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """`data.mean` and `data.std` as float32 [C]."""
    for name, values in (("mean", data.mean), ("std", data.std)):
        if not all(isinstance(value, numbers.Real) and math.isfinite(value) for value in values):
            raise UserError(f"config.data.{name}={tuple(values)}: must be finite numbers")
        if len(values) != channels:
            raise UserError(
                f"config.data.{name}={tuple(values)}: give {channels} values, one per channel, for "
                "mean and std, or () for both"
            )
    if min(data.std) <= 0:
        raise UserError(f"config.data.std={tuple(data.std)}: must be above 0")
    return np.asarray(data.mean, np.float32), np.asarray(data.std, np.float32)


def _stored_shape(source: Source, image_size: int) -> tuple[int, int, int] | None:
    """(H, W, C) of all images, after `image_size`; None if their sizes differ."""
    shapes = [_split_shape(split, image_size) for split in (source.train, source.test)]
    return shapes[0] if shapes[0] == shapes[1] else None


def _split_shape(split: Split, image_size: int) -> tuple[int, int, int] | None:
    if isinstance(split, ArraySplit):
        _, height, width, channels = split.images.shape
    elif image_size:
        height, width, channels = split.records[0].shape
    else:
        return split.records.common_shape()
    return (image_size, image_size, channels) if image_size else (height, width, channels)


def _check_one_fits(shape: tuple[int, int, int] | None, data: ConfigDict) -> None:
    """Raises `UserError` unless the memory holds an image as float32, before and after resizing."""
    if shape is not None:
        setting = f"config.data.image_size={data.image_size}" if data.image_size else data.source
        check_fits(8 * math.prod(shape), f"{setting}: an image", "set a smaller image_size")


def _placed_on_device(data: ConfigDict, shape: tuple[int, int, int] | None, size: int) -> bool:
    if data.placement == "device" and shape is None:
        raise UserError(
            f"config.data.placement='device': the images of {data.source} differ in size; "
            "set config.data.image_size"
        )
    if data.placement != "auto":
        return data.placement == "device"
    small = shape is not None and size * int(np.prod(shape)) <= DEVICE_BYTES
    return small and AUGMENTATIONS[data.augmentation].crop is None


def _streamed_shape(shape: tuple[int, int, int] | None, data: ConfigDict) -> tuple[int, int, int]:
    if shape is None or shape[0] != shape[1]:
        raise UserError(
            f"{data.source}: images are streamed and not squares of one size; "
            "set config.data.image_size (224 is usual)"
        )
    return shape


def _as_arrays(split: Split, shape: tuple[int, int, int]) -> ArraySplit:
    if isinstance(split, ArraySplit) and split.images.shape[1:] == shape:
        return split
    stored = split[0]
    all_shape = (len(split.labels), *shape)
    check_fits(
        math.prod(all_shape),
        f"config.data.placement: images of {list(all_shape)} held in memory",
        "set config.data.placement='stream' or a smaller config.data.image_size",
    )
    out = np.empty(all_shape, np.uint8)

    def fill(start: int) -> None:
        for index in range(start, min(start + 256, len(out))):
            pixels = stored[index]
            out[index] = images.fit(pixels, shape[0]) if pixels.shape != shape else pixels

    with decoding.threads() as threads:
        list(threads.map(fill, range(0, len(out), 256)))
    return ArraySplit(out, split.labels)


def _as_records(split: Split) -> RecordSplit:
    if isinstance(split, RecordSplit):
        return split
    images, of_pixels = split.images, split.masks
    # From here on only the length and the items of the arrays are used.
    return RecordSplit(images, split.labels, of_pixels)  # type: ignore[arg-type]  # as said above


def _sample(split: RecordSplit, size: int, seed: int) -> np.ndarray:
    """At most 2,000 random images, resized to [size, size, C]."""
    count = min(len(split.labels), STATISTICS_IMAGES)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(split.labels))[:count])
    with decoding.threads() as threads:
        fitted = threads.map(lambda i: images.fit(split.records[int(i)], size), chosen)
        return np.stack(list(fitted))
