"""Teachers of a run: named by directory, or trained first in the run's own workdir."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from kdjax import config as configs
from kdjax import methods, models
from kdjax.data import transformations
from kdjax.errors import UserError
from kdjax.networks import Network, NetworkSpec
from kdjax.runs import metrics as metric_files

_SUBDIRECTORY = "teacher"
_ANY = 10  # number of classes, where it does not matter


def config_of_teacher(config: ConfigDict) -> ConfigDict | None:
    """The config of the run that trains a run's teacher, or None where none is to be trained.

    It is the run's own with the method `config.teacher.method`, the network
    `config.teacher.network` and, if given, `config.teacher.epochs` and
    `config.teacher.learning_rate`. It is not pruned, and starts from random weights.

    Raises:
      UserError: the teacher would need a teacher itself.
    """
    wanted = config.teacher.network and not config.teacher.checkpoint
    if not wanted or not methods.needs_teacher(config):
        return None
    own = ConfigDict(config.to_dict())
    own.method = config.teacher.method
    own.networks = (config.teacher.network,)
    own.shared_stages = 0
    own.epochs = config.teacher.epochs or config.epochs
    own.optimizer.learning_rate = config.teacher.learning_rate or config.optimizer.learning_rate
    own.teacher = configs.base().teacher
    own.pruning, own.start = configs.base().pruning, configs.base().start
    if methods.needs_teacher(own):
        raise UserError(
            f"config.teacher.method={own.method!r} needs a teacher itself; use 'cross_entropy' or "
            "'hssakd_teacher'"
        )
    return own.lock()


def check(config: ConfigDict) -> None:
    """Raises `UserError` if the run could not use the teacher that is trained for it first.

    The method is built with a teacher without weights, which shows errors before hours of training.
    """
    methods.create(
        config,
        num_classes=_ANY,
        axis_name=None,
        train_labels=np.arange(_ANY * config.batch_size) % _ANY,
        teacher=abstract_teacher(config, _ANY),
    )


def abstract_teacher(config: ConfigDict, num_classes: int) -> Network:
    """A network such as the run's teacher, with shapes in place of weights; nothing is read.

    Where only a checkpoint says what the teacher is, the network is the student's own.
    """
    joint = config.method == "hssakd_student"
    if config_of_teacher(config) is not None:
        joint = config.teacher.method == "hssakd_teacher"
    spec = NetworkSpec.of(config.teacher.network or next(iter(config.networks), ""), num_classes)
    if joint:
        count = transformations.create(config.hssakd.transformations).count
        form = models.Form("hsakd", (("transformations", count),))
        spec = dataclasses.replace(spec, form=form)
    return Network(spec, spec.abstract_variables())


def resolved(config: ConfigDict, workdir: Path | None) -> ConfigDict:
    """`config`, with the checkpoint of the teacher that was trained in the run's workdir."""
    if workdir is None or config_of_teacher(config) is None:
        return config
    config = ConfigDict(config.to_dict())
    config.teacher.checkpoint = str(directory(workdir))
    return config.lock()


def directory(workdir: Path) -> Path:
    """Where the teacher of a run is trained."""
    return workdir / _SUBDIRECTORY


def finished(config: ConfigDict, workdir: Path) -> bool:
    """Whether the run of `config` in `workdir` has ended: its last epoch is on disk."""
    row = metric_files.last(workdir / "metrics.jsonl")
    if row is None or row.get("epoch", 0) < config.epochs:
        return False
    return (workdir / "checkpoints" / str(row["step"])).is_dir()
