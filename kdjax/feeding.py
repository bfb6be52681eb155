"""What goes to the devices: indices into resident arrays, or decoded batches of a streamed set."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from kdjax.data import ArraySplit, Dataset, augment, order, stream
from kdjax.parallel import Parallel

Arrays = dict[str, Any]

_MOST_STEPS = 100
_STREAMED_BYTES = 2**28  # of the batches of one dispatch, which the host stacks


def automatic_steps(dataset: Dataset, batch_size: int) -> int:
    """The most steps per dispatch that fit the device and the data.

    One on CPU, where steps are not looped over (`parallel.scan`) and outlast the host's work by
    far; elsewhere up to 100, and of streamed sets as many batches as make 256 MiB.
    """
    if jax.default_backend() == "cpu":
        return 1
    if isinstance(dataset.train, ArraySplit):
        return _MOST_STEPS
    batch_bytes = batch_size * int(np.prod(dataset.image_shape))
    return max(1, min(_MOST_STEPS, _STREAMED_BYTES // batch_bytes))


def dispatch_lengths(steps: int, most: int) -> tuple[int, ...]:
    """Cuts an epoch of `steps` into dispatches of at most `most` steps.

    All are equally long if a length of at least half of `most` divides the epoch; otherwise the
    last one is shorter (and costs a second compilation).
    """
    for length in range(min(most, steps), (most + 1) // 2 - 1, -1):
        if steps % length == 0:
            return (length,) * (steps // length)
    count = -(-steps // most)
    length = -(-steps // count)
    return (length,) * (steps // length) + ((steps % length,) if steps % length else ())


class Feed:
    """Batches of a data set for all dispatches of an epoch, or of an evaluation.

    Args:
      config: `config.data`, `config.seed`, `config.batch_size`, `config.evaluation.batch_size`.
      dataset: resident (`ArraySplit`) or streamed (`RecordSplit`).
      parallel: where the batches go.
      most_steps: the most steps per dispatch.
    """

    def __init__(self, config: ConfigDict, dataset: Dataset, parallel: Parallel, most_steps: int):
        self.config = config
        self.dataset = dataset
        self.parallel = parallel
        self.resident = isinstance(dataset.train, ArraySplit)
        self.steps_per_epoch = order.steps_per_epoch(len(dataset.train.labels), config.batch_size)
        self.lengths = dispatch_lengths(self.steps_per_epoch, most_steps)
        self.most_steps = most_steps

    def constants(self, split: str) -> Arrays:
        """The resident arrays of 'train' or 'test' on every device; nothing for a streamed set."""
        if not self.resident:
            return {}
        arrays = getattr(self.dataset, split)
        return self.parallel.replicate({"image": arrays.images, "label": arrays.labels})

    def train(self, epoch: int, first_step: int) -> Iterator[tuple[int, Arrays]]:
        """Yields (steps, batches `[devices, steps, batch per device, ...]`) from a step on."""
        config = self.config
        rows = order.epoch_order(
            self.dataset.train.labels,
            seed=config.seed,
            epoch=epoch,
            batch_size=config.batch_size,
            images_per_class=config.data.images_per_class,
        )
        if self.resident:
            for start, stop in self._dispatches(first_step):
                batches = {"index": self.parallel.split(rows[start:stop])}
                yield stop - start, self.parallel.shard(batches)
            return
        reader = stream.train_batches(
            self.dataset.train,
            rows,
            epoch=epoch,
            seed=config.seed,
            image_size=self.dataset.image_shape[0],
            augmentation=config.data.augmentation,
            first_step=first_step,
            columns=self.parallel.columns(config.batch_size),
            workers=config.data.workers,
        )
        try:
            for start, stop in self._dispatches(first_step):
                yield stop - start, self._stack([next(reader) for _ in range(start, stop)])
        finally:
            reader.close()

    def _dispatches(self, first_step: int) -> Iterator[tuple[int, int]]:
        """(start, stop) of every dispatch that is not done; the cuts do not depend on a restart."""
        start = 0
        for length in self.lengths:
            if start + length > first_step:
                yield max(start, first_step), start + length
            start += length

    def test(self) -> Iterator[Arrays]:
        """Yields batches of the whole test split with 'mask', 0 on padding."""
        devices = self.parallel.device_count
        batch_size = -(-self.config.evaluation.batch_size // devices) * devices
        split = self.dataset.test
        indices, mask = order.evaluation_order(len(split.labels), batch_size)
        if self.resident:
            for start in range(0, len(indices), self.most_steps):
                rows = slice(start, start + self.most_steps)
                batches = {"index": indices[rows], "mask": mask[rows]}
                yield self.parallel.shard(jax.tree.map(self.parallel.split, batches))
            return
        reader = stream.evaluation_batches(
            split,
            indices,
            mask,
            image_size=self.dataset.image_shape[0],
            columns=self.parallel.columns(batch_size),
            workers=self.config.data.workers,
            crop_fraction=0.875 if self.config.data.augmentation == "resized_crop_flip" else 1.0,
        )
        for batch in reader:
            yield self._stack([batch])

    def _stack(self, batches: list[Arrays]) -> Arrays:
        """K host batches -> `[local devices, K, batch per device, ...]` on the devices."""
        devices = self.parallel.local_device_count

        def arrange(*rows):
            stacked = np.stack(rows)
            split = stacked.reshape(len(rows), devices, -1, *stacked.shape[2:])
            return np.ascontiguousarray(split.swapaxes(0, 1))

        return self.parallel.shard(jax.tree.map(arrange, *batches))


def train_input(dataset: Dataset, augmentation: str) -> Callable[..., Arrays]:
    """`(constants, batch, key, positions) -> method batch`: gather, augment, normalise.

    Every image has a key of its own, from the step's key and its position in the global batch, so
    that the same images come out on any number of devices.
    """
    augment_images = augment.augmenter(augmentation)

    def one(key, image):
        return augment_images(key, image[None])[0]

    def prepare(constants, batch, key, positions):
        images, labels = _look_up(constants, batch)
        keys = jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)
        images = jax.vmap(one)(keys, images)
        return {
            "image": augment.normalize(images, dataset.mean, dataset.std),
            "label": labels,
            "index": batch["index"],
        }

    return prepare


def test_input(dataset: Dataset) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """`(constants, batch) -> images, labels`: gather and normalise."""

    def prepare(constants, batch):
        images, labels = _look_up(constants, batch)
        return augment.normalize(images, dataset.mean, dataset.std), labels

    return prepare


def _look_up(constants, batch):
    if constants:
        return constants["image"][batch["index"]], constants["label"][batch["index"]]
    return batch["image"], batch["label"]
