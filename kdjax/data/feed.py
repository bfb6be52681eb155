"""Input to the devices: indices into resident arrays, or batches of a streamed data set."""

from collections.abc import Generator, Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from kdjax.data import order, stream
from kdjax.data.augment import AUGMENTATIONS
from kdjax.data.dataset import Dataset
from kdjax.data.dispatches import check_memory, dispatch_lengths, images_per_step
from kdjax.data.objects.augmentation import Augmentation
from kdjax.data.splits import ArraySplit, RecordSplit
from kdjax.parallel import Parallel

Arrays = dict[str, Any]


class Feed:
    """Batches of a data set for all dispatches of an epoch, or of an evaluation.

    Args:
      config: `config.data`, `config.seed`, `config.batch_size`, `config.evaluation.batch_size`,
        `config.optimizer.accumulate`.
      dataset: resident (`ArraySplit`) or streamed (`RecordSplit`).
      parallel: the devices that batches are sent to.
      max_steps: largest number of steps per dispatch.
      augmentation: of images with objects; None for other data.

    Attributes:
      places: `order.micro_batch_places` if gradients are accumulated, or None.

    Raises:
      UserError: there is no whole batch, or the memory does not hold one.
    """

    def __init__(
        self,
        config: ConfigDict,
        dataset: Dataset,
        parallel: Parallel,
        max_steps: int,
        augmentation: Augmentation | None = None,
    ):
        self.config = config
        self.dataset = dataset
        self.parallel = parallel
        self.resident = isinstance(dataset.train, ArraySplit)
        self.steps_per_epoch = order.steps_per_epoch(len(dataset.train.labels), config.batch_size)
        self.images_per_step = images_per_step(config)
        self.places = None
        if config.optimizer.accumulate > 1:
            self.places = order.micro_batch_places(
                self.images_per_step, parallel.device_count, config.optimizer.accumulate
            )
        self.lengths = dispatch_lengths(self.steps_per_epoch, max_steps)
        self.max_steps = max_steps
        self.augmentation = augmentation
        check_memory(config, dataset.image_shape)

    def constants(self, split: str) -> Arrays:
        """The resident arrays of 'train' or 'test' on every device; nothing for a streamed set."""
        if not self.resident:
            return {}
        arrays = getattr(self.dataset, split)
        resident = {"image": arrays.images, "label": arrays.labels}
        if arrays.masks is not None:
            resident |= {"masks": arrays.masks, "sizes": arrays.sizes}
        return self.parallel.replicate(resident)

    def train_constants(self) -> Arrays:
        """The `constants` of 'train', and 'seed', the key data of `config.seed`.

        As an argument the seed is no part of the compiled program: runs of all seeds share it.
        """
        key = jax.random.key_data(jax.random.key(self.config.seed))
        return self.constants("train") | {"seed": self.parallel.replicate(np.asarray(key))}

    def train(self, epoch: int, first_step: int) -> Generator[tuple[int, Arrays]]:
        """Yields (steps, batches `[devices, steps, batch per device, ...]`) from a step on."""
        config = self.config
        rows = order.epoch_order(
            self.dataset.train.labels,
            seed=config.seed,
            epoch=epoch,
            batch_size=config.batch_size,
            images_per_class=config.data.images_per_class,
            partners=config.data.partners,
        )
        if self.resident:
            rows = rows if self.places is None else rows[:, self.places]
            for start, stop in self._dispatches(first_step):
                batches = {"index": self.parallel.split(rows[start:stop])}
                yield stop - start, self.parallel.shard(batches)
            return
        reader = self._train_reader(rows, epoch, first_step)
        try:
            for start, stop in self._dispatches(first_step):
                yield stop - start, self._stack([next(reader) for _ in range(start, stop)])
        finally:
            reader.close()

    def _train_reader(self, rows: np.ndarray, epoch: int, first_step: int) -> Generator[Arrays]:
        """The batches of a streamed epoch on the host."""
        config, shape, split = self.config, self.dataset.image_shape, self.dataset.train
        if isinstance(split, ArraySplit):
            raise ValueError("the data set is resident: no batches are read of it")
        columns = self.parallel.columns(self.images_per_step)
        common: dict[str, Any] = {
            "first_step": first_step,
            "columns": columns if self.places is None else self.places[columns],
            "workers": config.data.workers,
        }
        if self.dataset.has_masks:
            return stream.pair_batches(split, rows, shape=shape, **common)
        common |= {"epoch": epoch, "seed": config.seed}
        if self.augmentation is not None:
            return stream.object_train_batches(
                split, rows, shape=shape, augmentation=self.augmentation, **common
            )
        return stream.train_batches(
            split,
            rows,
            image_size=shape[0],
            crop=AUGMENTATIONS[config.data.augmentation].crop,
            views=config.data.views,
            **common,
        )

    def _dispatches(self, first_step: int) -> Iterator[tuple[int, int]]:
        """(start, stop) of the remaining dispatches, the same as in an uninterrupted epoch."""
        start = 0
        for length in self.lengths:
            if start + length > first_step:
                yield max(start, first_step), start + length
            start += length

    def evaluation(self, split: str = "test") -> Iterator[Arrays]:
        """Yields batches of a whole split, 'train' or 'test', with 'mask', 0 on padding."""
        devices = self.parallel.device_count
        batch_size = -(-self.config.evaluation.batch_size // devices) * devices
        images = getattr(self.dataset, split)
        indices, mask = order.evaluation_order(len(images.labels), batch_size)
        if self.resident:
            for start in range(0, len(indices), self.max_steps):
                rows = slice(start, start + self.max_steps)
                batches = {"index": indices[rows], "mask": mask[rows]}
                yield self.parallel.shard(jax.tree.map(self.parallel.split, batches))
            return
        reader = self._evaluation_reader(images, indices, mask, self.parallel.columns(batch_size))
        try:
            for batch in reader:
                yield self._stack([batch])
        finally:
            reader.close()

    def single(self, split: str, index: int) -> Arrays:
        """A batch of one image, as `evaluation` gives it, on the host and without 'mask'."""
        indices = np.array([[index]], np.int32)
        if self.resident:
            return {"index": indices[0]}
        images, mask = getattr(self.dataset, split), np.ones((1, 1), np.float32)
        (batch,) = self._evaluation_reader(images, indices, mask, slice(None))
        return {name: value for name, value in batch.items() if name != "mask"}

    def _evaluation_reader(
        self, images: RecordSplit, indices: np.ndarray, mask: np.ndarray, columns: slice
    ) -> Generator[Arrays]:
        """The batches of a streamed split on the host."""
        common: dict[str, Any] = {"columns": columns, "workers": self.config.data.workers}
        shape = self.dataset.image_shape
        if self.dataset.has_masks:
            return stream.pair_batches(images, indices, mask=mask, shape=shape, **common)
        if self.augmentation is not None:
            return stream.object_evaluation_batches(
                images, indices, mask, shape=shape, augmentation=self.augmentation, **common
            )
        crop = AUGMENTATIONS[self.config.data.augmentation].evaluation_crop
        return stream.evaluation_batches(
            images, indices, mask, image_size=shape[0], crop_fraction=crop, **common
        )

    def _stack(self, batches: list[Arrays]) -> Arrays:
        """K host batches -> `[local devices, K, batch per device, ...]` on the devices."""
        devices = self.parallel.local_device_count

        def arrange(*rows: np.ndarray) -> np.ndarray:
            stacked = np.stack(rows)
            split = stacked.reshape(len(rows), devices, -1, *stacked.shape[2:])
            return np.ascontiguousarray(split.swapaxes(0, 1))

        return self.parallel.shard(jax.tree.map(arrange, *batches))
