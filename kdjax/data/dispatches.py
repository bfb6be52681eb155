"""Numbers of images and steps per dispatch, and the memory that batches need."""

from __future__ import annotations

import math

import jax
from ml_collections import ConfigDict

from kdjax.data.augment import AUGMENTATIONS
from kdjax.data.available_memory import check_fits
from kdjax.data.dataset import Dataset
from kdjax.data.masks import pair_bytes
from kdjax.data.splits import ArraySplit

_MOST_STEPS = 100
_STREAMED_BYTES = 2**28  # of the batches of one dispatch, which the host stacks


def images_per_step(config: ConfigDict) -> int:
    """The number of images in a global batch: `config.batch_size`, and their partners."""
    return config.batch_size * (1 + config.data.partners)


def automatic_steps(dataset: Dataset, config: ConfigDict) -> int:
    """The largest number of steps per dispatch that fits the device and the data.

    It is 1 on CPU, where `parallel.scan` does not loop and a step takes far longer than the host's
    work; elsewhere it is at most 100, and for streamed sets at most 256 MiB of batches.
    """
    if jax.default_backend() == "cpu":
        return 1
    if isinstance(dataset.train, ArraySplit):
        return _MOST_STEPS
    return max(1, min(_MOST_STEPS, _STREAMED_BYTES // _batch_bytes(dataset, config)))


def _batch_bytes(dataset: Dataset, config: ConfigDict) -> int:
    """Bytes of a global batch of decoded images."""
    data = config.data
    crops = data.views if AUGMENTATIONS[data.augmentation].crop else 1
    per_image = (
        pair_bytes(dataset.image_shape)
        if dataset.has_masks
        else crops * math.prod(dataset.image_shape)
    )
    return images_per_step(config) * per_image


def check_memory(config: ConfigDict, image_shape: tuple[int, int, int]) -> None:
    """Checks that the memory holds a batch, as uint8 and as float32.

    Raises:
      UserError: it does not.
    """
    sizes = {
        "batch_size": images_per_step(config) * config.data.views,
        "evaluation.batch_size": config.evaluation.batch_size,
    }
    for name, images in sizes.items():
        check_fits(
            5 * images * math.prod(image_shape),
            f"config.{name}: a batch of {images} images {list(image_shape)}",
            f"set a smaller config.{name} or config.data.image_size",
        )


def dispatch_lengths(steps: int, max_steps: int) -> tuple[int, ...]:
    """Divides an epoch of `steps` into dispatches of at most `max_steps` steps.

    All have the same length if a length of at least half of `max_steps` divides the epoch;
    otherwise the last one is shorter, which costs a second compilation.
    """
    for length in range(min(max_steps, steps), (max_steps + 1) // 2 - 1, -1):
        if steps % length == 0:
            return (length,) * (steps // length)
    count = -(-steps // max_steps)
    length = -(-steps // count)
    return (length,) * (steps // length) + ((steps % length,) if steps % length else ())
