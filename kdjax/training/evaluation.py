"""Evaluation of what was trained: a run's checkpoint, or a network of its own."""

import math
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from kdjax import config as configs
from kdjax.compaction import history as compactions
from kdjax.errors import UserError
from kdjax.networks.store import Pretrained, backbone
from kdjax.runs.checkpoints import Checkpoints
from kdjax.training.program import Run
from kdjax.training.step import TrainState


def evaluate(config: ConfigDict, workdir: Path, which: str) -> dict[str, float]:
    """Evaluates a run's 'best' or 'latest' checkpoint on the whole test split."""
    run, step, state = restored(config, workdir, which)
    metrics = run.evaluate(run.parallel.replicate(state), run.feed.constants("test"))
    return {"step": step, "epoch": math.floor(step / run.steps_per_epoch)} | metrics


def restored(config: ConfigDict, workdir: Path, which: str) -> tuple[Run, int, TrainState]:
    """A run as its 'best' or 'latest' checkpoint left it: the run, the step, and the state."""
    checkpoints = Checkpoints(workdir / "checkpoints", config.evaluation.best, read_only=True)
    left = compactions.read(workdir, checkpoints.step(which))
    run = Run(config, workdir, compactions=left)
    step, state = checkpoints.restore(run.abstract_state(), which)
    checkpoints.close()
    return run, step, state


def evaluate_network(config: ConfigDict, network: Pretrained) -> dict[str, float]:
    """Evaluates a network, without its branches, on the whole test split of `config.data`.

    Raises:
      UserError: the data has another number of classes.
    """
    network = backbone(network)
    config = ConfigDict(config.to_dict())
    config.update(method="cross_entropy", networks=(network.name,), shared_stages=0)
    config.pruning, config.start = configs.base().pruning, configs.base().start
    compaction = network.compaction
    run = Run(config, compactions={} if compaction is None else {"network_0": compaction})
    if run.num_classes != network.num_classes:
        raise UserError(
            f"{network.name} has {network.num_classes} classes, config.data.source="
            f"{config.data.source} has {run.num_classes}"
        )
    variables = network.variables
    params, model_state = (
        {"cohort": {"network_0": variables["params"]}},
        {"batch_stats": {"network_0": variables["batch_stats"]}},
    )
    state = TrainState(np.zeros((), np.int32), params, model_state, ())
    return run.evaluate(run.parallel.replicate(state), run.feed.constants("test"))
