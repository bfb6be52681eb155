"""Reading and evaluation of trained runs: settings, metrics, networks and accuracies."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
from ml_collections import ConfigDict

from kdjax import config as configs
from kdjax import models
from kdjax.data.regular_files import expanded
from kdjax.errors import UserError
from kdjax.networks import Network, load, metadata
from kdjax.runs import metrics as metric_files
from kdjax.runs import workdir as workdirs
from kdjax.runs.checkpoints import Checkpoints
from kdjax.runs.history import History
from kdjax.training.building import build
from kdjax.training.program import Program
from kdjax.training.step import TrainState


class Restored(NamedTuple):
    """A run restored from one of its checkpoints.

    Attributes:
      program: the program for the networks of the checkpoint.
      step: the step of the checkpoint.
      state: the training state, as numpy arrays.
    """

    program: Program
    step: int
    state: TrainState


@dataclasses.dataclass(frozen=True)
class Run:
    """A run, complete or in progress, as read from its workdir.

    Attributes:
      workdir: the directory of the run.
      config: the settings of the run.
      rows: the rows of metrics.jsonl, one per epoch.
    """

    workdir: Path
    config: ConfigDict
    rows: list[dict[str, float]]

    @functools.cached_property
    def networks(self) -> tuple[Network, ...]:
        """The networks of the run's best checkpoint, read when they are first asked for.

        Raises:
          UserError: there is no checkpoint, or it cannot be read.
        """
        return tuple(self.load_networks().values())

    def load_networks(self, checkpoint: str = "best") -> dict[str, Network]:
        """The networks of the run's 'best' or 'latest' checkpoint, by 'network_i'.

        Raises:
          UserError: there is no such checkpoint, or it cannot be read.
        """
        names = [f"network_{index}" for index in range(len(self.config.networks))]
        return {name: load(self.workdir, name, checkpoint) for name in names}

    def history(self) -> History:
        """The metrics of all epochs as a table."""
        return History(self.rows)

    def evaluate(self, split: str = "test", checkpoint: str = "best") -> dict[str, float]:
        """Evaluates all networks of the run on a whole split: `kdjax.evaluate`.

        Raises:
          UserError: an unknown split or checkpoint, or one that cannot be read.
        """
        return evaluate(self, split=split, checkpoint=checkpoint)

    def restore(self, checkpoint: str = "best") -> Restored:
        """The program, the step and the state of the 'best' or the 'latest' checkpoint.

        Raises:
          UserError: there is no such checkpoint, it cannot be read, or the data cannot.
        """
        directory = self.workdir / "checkpoints"
        checkpoints = Checkpoints(directory, self.config.evaluation.best, read_only=True)
        loaded = checkpoints.load(checkpoint)
        checkpoints.close()
        program = build(
            self.config,
            self.workdir,
            compactions=metadata.compactions_of(loaded.metadata),
            normalization=metadata.specs_of(loaded.metadata)[0].input.normalization,
        )
        return Restored(program, loaded.step, loaded.fitted(program.abstract_state()))


def load_run(workdir: str | Path) -> Run:
    """Reads a run from its workdir; data and checkpoints are read when they are needed.

        run = kdjax.load_run("runs/mcl")
        curve = run.history()["mean/top1"]
        fit = run.evaluate(split="train")["network_0/top1"]
        probabilities = run.networks[0].predict(images)  # uint8 [M, H, W, C] to [M, N]

    Args:
      workdir: the directory given as `--workdir` in training.

    Raises:
      UserError: the directory holds no run, or a file of it is damaged.
    """
    workdir = expanded(str(workdir), "workdir")
    config = workdirs.read_config(workdir)
    return Run(workdir, config, metric_files.read(workdir / "metrics.jsonl"))


def evaluate(run: Run, *, split: str = "test", checkpoint: str = "best") -> dict[str, float]:
    """Evaluates all networks and heads of a run on a whole split.

    Args:
      run: a run from `load_run`. If the data have moved or the devices differ, replace its `config`
        by `dataclasses.replace`.
      split: 'test', or 'train' for the training images without augmentation.
      checkpoint: 'best' or 'latest'.

    Returns:
      'NAME/top1', 'NAME/top5' (with more than 5 classes) and 'NAME/cross_entropy' of every
      prediction of the method, 'mean/top1' of the networks, and 'step' and 'epoch' of the
      checkpoint. Accuracies are fractions.

    Raises:
      UserError: an unknown split or checkpoint, or one that cannot be read.
    """
    if split not in ("train", "test"):
        raise UserError(f"split={split!r} is unknown; use 'train' or 'test'")
    if checkpoint not in ("best", "latest"):
        raise UserError(f"checkpoint={checkpoint!r} is unknown; use 'best' or 'latest'")
    program, step, state = run.restore(checkpoint)
    return {"step": step, "epoch": math.floor(step / program.steps_per_epoch)} | measure(
        program, state, split
    )


def measure(program: Program, state: TrainState, split: str = "test") -> dict[str, float]:
    """`Program.evaluate` for a state of numpy arrays."""
    constants = program.feed.constants(split)
    return program.evaluate(program.parallel.replicate(state), constants, split=split)


def evaluate_network(
    config: ConfigDict, network: Network, *, split: str = "test"
) -> dict[str, float]:
    """Evaluates a network, without its branches, on a whole split of `config.data`.

    A network with another head than its classifier is evaluated by the method of the config.

    Raises:
      UserError: the data has another number of classes, or the method makes another network.
    """
    config = ConfigDict(config.to_dict())
    if network.spec.form.classifies:
        network = network.backbone
        config.method = "cross_entropy"
    config.update(networks=(network.spec.name,), shared_stages=0)
    config.pruning, config.start = configs.base().pruning, configs.base().start
    config.ema = configs.base().ema
    compaction = network.spec.compaction
    program = build(
        config,
        compactions={} if compaction is None else {"network_0": compaction},
        normalization=network.spec.input.normalization,
    )
    if program.num_classes != network.spec.num_classes:
        raise UserError(
            f"{network.spec.name} has {network.spec.num_classes} classes, config.data.source="
            f"{config.data.source} has {program.num_classes}"
        )
    _check_form(program, network)
    variables = network.variables
    params, model_state = (
        {"cohort": {"network_0": variables["params"]}},
        {"batch_stats": {"network_0": variables.get("batch_stats", {})}},
    )
    return measure(program, TrainState(jnp.zeros((), jnp.int32), params, model_state, ()), split)


def _check_form(program: Program, network: Network) -> None:
    """Raises `UserError` if the method makes another network than that."""
    (made,) = program.specs
    if made.build() != network.spec.build():
        name, options = network.spec.full_name, dict(network.spec.form.options)
        entry = models.FORMS[network.spec.form.name]
        wanted = {entry.option: entry.default, **entry.more} | options
        options_text = ", ".join(f"{key}={value}" for key, value in wanted.items())
        raise UserError(
            f"{name} is not what config.method={program.config.method!r} makes of its settings; "
            f"use a config whose network has {options_text}"
        )
