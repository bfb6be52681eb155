"""Batches of image sets that are too large or too uneven to be held on the device.

Images are decoded, cropped and resized by grain, in this process or in worker processes. What a
batch holds depends on (seed, epoch, image number) alone: not on the number of workers, and not on
the step at which reading started.
"""

import atexit
import weakref
from collections.abc import Iterator

import numpy as np

from kdjax.data import images
from kdjax.data.splits import RecordSplit
from kdjax.errors import UserError

_BUFFERED_BATCHES = 2
_unfinished: weakref.WeakSet = weakref.WeakSet()


class _TrainingImage:
    """Image number -> {'image', 'label', 'index'} as one step of training sees it."""

    def __init__(self, split: RecordSplit, image_size: int, resized_crop: bool, seed: int):
        self.split = split
        self.image_size = image_size
        self.resized_crop = resized_crop
        self.seed = seed

    def __call__(self, index) -> dict[str, np.ndarray]:
        index = int(index)
        pixels = self.split.records[index]
        if self.resized_crop:
            rng = np.random.default_rng([*self.seed, index])
            pixels = images.random_resized_crop(pixels, self.image_size, rng)
        else:
            pixels = images.fit(pixels, self.image_size)
        return _element(pixels, self.split.labels[index], index)


class _EvaluationImage:
    """Image number -> {'image', 'label', 'index'}, central crop."""

    def __init__(self, split: RecordSplit, image_size: int, crop_fraction: float):
        self.split = split
        self.image_size = image_size
        self.crop_fraction = crop_fraction

    def __call__(self, index) -> dict[str, np.ndarray]:
        index = int(index)
        pixels = self.split.records[index]
        pixels = images.fit_evaluation(pixels, self.image_size, self.crop_fraction)
        return _element(pixels, self.split.labels[index], index)


def _element(pixels: np.ndarray, label, index: int) -> dict[str, np.ndarray]:
    return {"image": pixels, "label": np.int32(label), "index": np.int32(index)}


def train_batches(
    split: RecordSplit,
    order: np.ndarray,
    *,
    epoch: int,
    seed: int,
    image_size: int,
    augmentation: str,
    first_step: int = 0,
    columns: slice = slice(None),
    workers: int = 0,
) -> Iterator[dict[str, np.ndarray]]:
    """The batches of one epoch from `first_step` on.

    With augmentation 'resized_crop_flip' each image is a random crop (8-100 % of the area, aspect
    3/4-4/3) at `image_size`; otherwise its shorter side is resized and the central square cut
    out. Flips and padded crops follow on the device (`augment.augmenter`).

    Args:
      split: the training images.
      order: int [steps, batch_size], of `order.epoch_order`.
      epoch: of that order.
      seed: `config.seed`.
      image_size: pixels.
      augmentation: `config.data.augmentation`.
      first_step: row to begin with; the batches from there on are the same for any value.
      columns: the part of each row this process reads.
      workers: processes to decode in; 0 decodes in this one.

    Yields:
      {'image': uint8 [b, image_size, image_size, C], 'label': int32 [b], 'index': int32 [b]}
      Close the iterator (`.close()`) if it is not read to its end: that ends the workers.

    Raises:
      UserError: `workers` is negative, or an image is unreadable.
    """
    rows = order[first_step:, columns]
    resized_crop = augmentation == "resized_crop_flip"
    return _batches(rows, _TrainingImage(split, image_size, resized_crop, (seed, epoch)), workers)


def evaluation_batches(
    split: RecordSplit,
    order: np.ndarray,
    mask: np.ndarray,
    *,
    image_size: int,
    columns: slice = slice(None),
    workers: int = 0,
    crop_fraction: float = 0.875,
) -> Iterator[dict[str, np.ndarray]]:
    """The batches of a whole split, by the ImageNet protocol.

    Images bigger than `image_size` are resized to a shorter side of image_size / crop_fraction and
    cropped to the central square; others are only brought to `image_size`.

    Args:
      split: the images.
      order: int [steps, batch_size], of `order.evaluation_order`.
      mask: float32 [steps, batch_size], of `order.evaluation_order`.
      image_size: pixels.
      columns: the part of each row this process reads.
      workers: processes to decode in; 0 decodes in this one.
      crop_fraction: share of the shorter side that is kept.

    Yields:
      As `train_batches`, and 'mask': float32 [b].

    Raises:
      UserError: `workers` is negative, or an image is unreadable.
    """
    batches = _batches(
        order[:, columns], _EvaluationImage(split, image_size, crop_fraction), workers
    )
    try:
        for row, batch in zip(mask[:, columns], batches, strict=True):
            yield {**batch, "mask": row}
    finally:
        batches.close()


def _batches(rows: np.ndarray, load_image, workers: int) -> Iterator[dict[str, np.ndarray]]:
    """Yields one batch per row of image numbers [S, b], in order."""
    if workers < 0:
        raise UserError(f"config.data.workers={workers}: must be 0 (in this process) or more")
    batches = _read(rows, load_image, workers)
    _unfinished.add(batches)
    return batches


@atexit.register
def _close_unfinished() -> None:
    """Ends workers while the interpreter is whole; later, grain's clean-up prints tracebacks."""
    for batches in list(_unfinished):
        if not batches.gi_running:
            batches.close()


def _read(rows: np.ndarray, load_image, workers: int) -> Iterator[dict[str, np.ndarray]]:
    if not rows.size:
        return
    import grain

    # Batched before it is iterated: workers take whole batches in turn, which keeps their order.
    # The same makes grain buffer whole batches, and its default of 500 would fill the memory.
    dataset = grain.MapDataset.source(np.ascontiguousarray(rows).reshape(-1)).map(load_image)
    dataset = dataset.batch(rows.shape[1], drop_remainder=True).to_iter_dataset(
        grain.ReadOptions(num_threads=_BUFFERED_BATCHES, prefetch_buffer_size=_BUFFERED_BATCHES)
    )
    if workers:
        _mark_flags_parsed()
        dataset = dataset.mp_prefetch(
            grain.MultiprocessingOptions(
                num_workers=min(workers, len(rows)), per_worker_buffer_size=_BUFFERED_BATCHES
            )
        )
    iterator = iter(dataset)
    try:
        for batch in iterator:
            # What workers send lies in shared memory, which is scarce in containers: copy it, so
            # that batches a caller keeps do not hold on to it.
            yield {key: np.array(value) for key, value in batch.items()} if workers else batch
    finally:
        iterator.close()


def _mark_flags_parsed() -> None:
    """Lets grain start workers in programs that do not parse absl flags."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
