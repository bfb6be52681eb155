"""The first batch of a run as its method gets it, on the devices there are.

    python -m tests.tiny_runs.first_batch SOURCE OUT

Every image comes twice and with a partner. The whole batch, of all devices, lands in
OUT/AUGMENTATION.npz.
"""

import sys
from pathlib import Path

import jax
import numpy as np

from kdjax import config as configs
from kdjax import data
from kdjax.data import preprocessing
from kdjax.data.feed import Feed
from kdjax.parallel import AXIS, Parallel, fetch
from kdjax.training.step import step_batch

AUGMENTATIONS = ("crop_flip", "resized_crop_flip")  # of a resident set, and of a streamed one


def main(source: str, out: str) -> None:
    for augmentation in AUGMENTATIONS:
        np.savez(Path(out) / f"{augmentation}.npz", **first_batch(source, augmentation))


def first_batch(source: str, augmentation: str) -> dict[str, np.ndarray]:
    config = configs.base()
    config.batch_size = 8
    config.data.update(source=source, augmentation=augmentation, image_size=8, views=2, partners=1)
    parallel = Parallel("pmap")
    feed = Feed(config, data.load(config), parallel, 1)
    make = step_batch(preprocessing.train_input(feed.dataset, augmentation, views=2), config.seed)

    def gathered(step, constants, batches):
        only = jax.tree.map(lambda x: x[0], batches)
        batch, _ = make(constants, only, step, jax.lax.axis_index(AXIS))
        del batch["step"]
        return jax.lax.all_gather(batch, AXIS, tiled=True)

    _, batches = next(feed.train(0, 0))
    return fetch(parallel.map(gathered)(np.int32(0), feed.constants("train"), batches))


if __name__ == "__main__":
    main(*sys.argv[1:])
