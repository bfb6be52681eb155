"""Batches of image sets that are not held on the device: large ones, or images of many sizes.

Images are decoded, cropped and resized in threads of this process or in worker processes. The
element of a batch depends on (seed, epoch, position in the epoch's order) only: not on the number
of workers, the part of a batch that is read, or the step at which reading starts. An image that
occurs twice in an epoch is cropped twice.
"""

from collections.abc import Generator

import numpy as np

from kdjax.data.decoding import Batch, LoadItem, load_batches
from kdjax.data.image_elements import Crop, CroppedImage, EvaluationImage, FittedImage
from kdjax.data.masks import CanvasPairs
from kdjax.data.objects.augmentation import Augmentation
from kdjax.data.objects.canvas import EvaluationElement, TrainElement
from kdjax.data.splits import RecordSplit


def train_batches(
    split: RecordSplit,
    order: np.ndarray,
    *,
    epoch: int,
    seed: int,
    image_size: int,
    crop: Crop | None = None,
    views: int = 1,
    first_step: int = 0,
    columns: slice | np.ndarray = slice(None),
    workers: int = 0,
) -> Generator[Batch]:
    """The batches of one epoch from `first_step` on.

    With `crop` an element is a random crop of size `image_size`, or `views` random crops of the
    image, which is decoded once; otherwise the shorter side is resized and the central square is
    cut out, from which all views are made. Further augmentation takes place on the device.

    Args:
      split: the training images.
      order: int [steps, B], of `order.epoch_order`.
      epoch: the epoch of that order.
      seed: `config.seed`.
      image_size: pixels.
      crop: of `augment.Augmentation`.
      views: `config.data.views`.
      first_step: the first row to read; the batches do not depend on it.
      columns: the part of each row that this process reads, in this order.
      workers: processes to decode in; 0 decodes in this one.

    Yields:
      {'image': uint8 [b, image_size, image_size, C], 'label': int32 [b], 'index': int32 [b]}; of
      several random crops of each image, 'image' is [b, views, image_size, image_size, C].
      Close the iterator (`.close()`) if it is not read to its end: that ends threads and workers.

    Raises:
      UserError: `workers` is negative, or an image is unreadable.
    """
    load_image: LoadItem
    if crop is None:
        load_image = FittedImage(split, image_size)
    else:
        load_image = CroppedImage(split, crop, image_size, views, (seed, epoch))
    return load_batches(_numbered(order)[first_step:, columns], load_image, workers)


def _numbered(order: np.ndarray) -> np.ndarray:
    """Image numbers [S, B] with their positions in the epoch, [S, B, 2]."""
    return np.stack([order, np.arange(order.size).reshape(order.shape)], axis=-1)


def object_train_batches(
    split: RecordSplit,
    order: np.ndarray,
    *,
    epoch: int,
    seed: int,
    shape: tuple[int, int, int],
    augmentation: Augmentation,
    first_step: int = 0,
    columns: slice | np.ndarray = slice(None),
    workers: int = 0,
) -> Generator[Batch]:
    """The batches of one epoch of images with objects, augmented together, from `first_step` on.

    Args:
      split: the training images, with objects.
      shape: (H, W, 3) of the canvas.
      augmentation: of images and boxes.
      order, epoch, seed, first_step, columns, workers: as of `train_batches`.

    Yields:
      Stacked results of `TrainElement`, `[b, ...]`. Close the iterator if it is not read to its
      end.

    Raises:
      UserError: `workers` is negative, or an image is unreadable or not as large as annotated.
    """
    load_image = TrainElement(split, shape, augmentation, (seed, epoch))
    return load_batches(_numbered(order)[first_step:, columns], load_image, workers)


def object_evaluation_batches(
    split: RecordSplit,
    order: np.ndarray,
    mask: np.ndarray,
    *,
    shape: tuple[int, int, int],
    augmentation: Augmentation,
    columns: slice | np.ndarray = slice(None),
    workers: int = 0,
) -> Generator[Batch]:
    """The batches of a whole split of images with objects, without random augmentation.

    Args:
      split: the images, with objects.
      shape, augmentation: as of `object_train_batches`.
      order, mask, columns, workers: as of `evaluation_batches`.

    Yields:
      Stacked results of `EvaluationElement`, `[b, ...]`, and 'mask': float32 [b].

    Raises:
      UserError: as `object_train_batches`.
    """
    load_image = EvaluationElement(split, shape, augmentation)
    return _masked(load_batches(order[:, columns], load_image, workers), mask[:, columns])


def evaluation_batches(
    split: RecordSplit,
    order: np.ndarray,
    mask: np.ndarray,
    *,
    image_size: int,
    columns: slice | np.ndarray = slice(None),
    workers: int = 0,
    crop_fraction: float = 0.875,
) -> Generator[Batch]:
    """The batches of a whole split, by the ImageNet protocol.

    Images larger than `image_size` are resized to a shorter side of image_size / crop_fraction and
    cropped to the central square; others are only resized to `image_size`.

    Args:
      split: the images.
      order: int [steps, batch_size], of `order.evaluation_order`.
      mask: float32 [steps, batch_size], of `order.evaluation_order`.
      image_size: pixels.
      columns: the part of each row that this process reads.
      workers: processes to decode in; 0 decodes in this one.
      crop_fraction: share of the shorter side that is kept.

    Yields:
      As `train_batches`, and 'mask': float32 [b].

    Raises:
      UserError: `workers` is negative, or an image is unreadable.
    """
    load_image = EvaluationImage(split, image_size, crop_fraction)
    return _masked(load_batches(order[:, columns], load_image, workers), mask[:, columns])


def _masked(batches: Generator[Batch], mask: np.ndarray) -> Generator[Batch]:
    try:
        for row, batch in zip(mask, batches, strict=True):
            yield {**batch, "mask": row}
    finally:
        batches.close()


def pair_batches(
    split: RecordSplit,
    order: np.ndarray,
    *,
    shape: tuple[int, int, int],
    mask: np.ndarray | None = None,
    first_step: int = 0,
    columns: slice | np.ndarray = slice(None),
    workers: int = 0,
) -> Generator[Batch]:
    """The batches of images with masks, which are augmented on the device, from `first_step` on.

    Args:
      split: with masks.
      order: int [steps, B], of `order.epoch_order` or `order.evaluation_order`.
      shape: (H, W, C) of the canvas.
      mask: of `order.evaluation_order`; None in training.
      first_step, columns, workers: as of `train_batches`.

    Yields:
      Stacked results of `masks.CanvasPairs`, [b, ...], and 'mask': float32 [b] if it is given.
      Close the iterator if it is not read to its end.

    Raises:
      UserError: `workers` is negative, an image or a mask is unreadable, or they do not fit.
    """
    rows = slice(first_step, None)
    batches = load_batches(order[rows, columns], CanvasPairs(split, shape), workers)
    return batches if mask is None else _masked(batches, mask[rows, columns])
