"""Padded batches of images with their objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from kdjax.data import images
from kdjax.data.regular_files import read_bytes
from kdjax.detection import image_transform
from kdjax.detection.annotations import AnnotatedImage, AnnotatedSet
from kdjax.detection.augmentation import Augmentation, augment
from kdjax.detection.regions import Truths
from kdjax.errors import UserError

Batch = dict[str, np.ndarray]


def canvas(settings: Augmentation, multiple: int = 32) -> tuple[int, int]:
    """Height and width that hold every image, upright or not, in multiples of `multiple`."""
    side = -(-settings.max_size // multiple) * multiple
    return side, side


def most_objects(data: AnnotatedSet) -> int:
    """The largest number of objects in an image that are learned; 1 at least."""
    return max(1, *(int((~image.ignored).sum()) for image in data.images))


def evaluated(settings: Augmentation) -> Augmentation:
    """`settings` without what is random: the largest of the sizes, no crop, no flip."""
    return settings._replace(crop=1.0, flip=0.0, min_sizes=(max(settings.min_sizes),))


def batches(
    data: AnnotatedSet,
    order: np.ndarray,
    settings: Augmentation,
    mean: np.ndarray,
    std: np.ndarray,
    *,
    objects: int,
    seed: int,
    epoch: int,
) -> Iterator[Batch]:
    """The batches of an epoch, all of one shape.

    What is drawn for an image is keyed by (seed, epoch, image), so the order and the number of
    processes make no difference.

    Args:
      data: images with objects.
      order: `[steps, B]` indices of images, such as `kdjax.data.order.epoch_order` gives.
      settings: of the augmentation.
      mean: `[C]` of pixels from 0 to 1, subtracted first.
      std: `[C]`, divided by.
      objects: G, for how many objects of an image there is room.
      seed: of the run.
      epoch: number of the epoch.

    Yields:
      'image' `[B, H, W, C]` float32, 'size' `[B, 2]` heights and widths without padding, 'boxes'
      `[B, G, 4]`, 'label' `[B, G]`, 'valid' `[B, G]` and 'index' `[B]`.

    Raises:
      UserError: an image cannot be read, is of another size than its annotation says, or has more
        than G objects.
    """
    for indices in order:
        rows = [
            _row(
                data.images[index],
                settings,
                (mean, std),
                objects,
                np.random.default_rng([seed, epoch, int(index)]),
            )
            for index in indices
        ]
        stacked = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        yield stacked | {"index": np.asarray(indices, np.int32)}


def _row(
    item: AnnotatedImage,
    settings: Augmentation,
    normalization: Sequence[np.ndarray],
    objects: int,
    rng: np.random.Generator,
) -> Batch:
    pixels = images.decode(read_bytes(item.file), where=str(item.file))
    if pixels.shape[:2] != (item.height, item.width):
        raise UserError(
            f"{item.file}: {pixels.shape[1]}x{pixels.shape[0]} pixels, but its annotation is for "
            f"{item.width}x{item.height}"
        )
    mean, std = (np.asarray(value, np.float32) for value in normalization)
    normalized = (pixels.astype(np.float32) / 255 - mean) / std
    learned = ~item.ignored
    changed, boxes, kept = augment(normalized, item.boxes[learned], settings, rng)
    labels = item.labels[learned][kept]
    boxes, count = boxes[kept], len(labels)
    if count > objects:
        raise UserError(f"{item.file}: {count} objects; there is room for {objects}")
    missing = objects - count
    return {
        "image": image_transform.pad(changed, *canvas(settings)),
        "size": np.array(changed.shape[:2], np.int32),
        "boxes": np.pad(boxes.astype(np.float32), ((0, missing), (0, 0))),
        "label": np.pad(labels, (0, missing)),
        "valid": np.arange(objects) < count,
    }


def truths(batch: Batch) -> Truths:
    """The objects of a batch, as the losses take them."""
    return Truths(batch["boxes"], batch["label"], batch["valid"])
