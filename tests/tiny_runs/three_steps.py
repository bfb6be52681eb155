"""Three steps of MCL, or of another method, on the devices there are.

    python -m tests.tiny_runs.three_steps SOURCE OUT NAME...

NAME is PARALLEL, PARALLEL+METHOD, or PARALLEL+local for BatchNorm statistics of each device's own.
The parameters and the method's state before and after land in OUT/NAME.npz.
"""

import os
import sys
from pathlib import Path

import jax
import numpy as np

from kdjax import config as configs
from kdjax.methods import METHODS
from kdjax.parallel import fetch
from kdjax.training.building import build
from tests.tiny_runs import networks  # noqa: F401


def main(source: str, out: str, *names: str) -> None:
    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        number = [int(os.environ[name]) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")]
        jax.distributed.initialize(None, *number)
    for name in names:
        before, after = three_steps(configured(source, name))
        if jax.process_index() == 0:
            np.savez(Path(out) / f"{name}.npz", **flat("before", before), **flat("after", after))


def configured(source: str, name: str):
    parallel, _, option = name.partition("+")
    method = option if option in METHODS else "mcl"
    config = configs.cifar_run(method, "digits,tiny", count=2)
    config.parallel, config.sync_batch_norm = parallel, option != "local"
    config.batch_size = 16
    config.data.source, config.data.images_per_class = source, 4 if method == "mcl" else 0
    config.data.augmentation = "contrastive" if config.data.views > 1 else "crop_flip"
    config.mcl_memory.negatives, config.moco.queue, config.moco.momentum = 8, 24, 0.5
    # Few and small steps: more would amplify differences of rounding as chaos does.
    config.optimizer.learning_rate, config.optimizer.warm_up_epochs = 0.01, 0
    return config


def three_steps(config):
    run = build(config)
    assert run.steps_per_epoch == 3
    before = run.init_state()
    state = run.parallel.replicate(before)
    constants = run.feed.train_constants()
    for _, batches in run.feed.train(0, 0):
        state, _ = run.train_steps(state, constants, batches)
    return before, fetch(state)


def flat(name: str, state) -> dict:
    leaves = jax.tree_util.tree_leaves_with_path((state.params, state.model_state))
    return {name + jax.tree_util.keystr(path): leaf for path, leaf in leaves}


if __name__ == "__main__":
    main(*sys.argv[1:])
