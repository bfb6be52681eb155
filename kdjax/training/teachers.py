"""Teachers of a run: read from a directory, or trained first in the run's workdir."""

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
_NUM_CLASSES = 10  # of checks that hold for any number of classes


def config_of_teacher(config: ConfigDict) -> ConfigDict | None:
    """The config of the run that trains a run's teacher, or None if no teacher is trained.

    It is a copy of `config` with the method `config.teacher.method`, the network
    `config.teacher.network` and, if set, `config.teacher.epochs` and
    `config.teacher.learning_rate`, without pruning, and starting from random weights.

    Raises:
      UserError: the teacher would need a teacher itself.
    """
    is_trained = config.teacher.network and not config.teacher.checkpoint
    if not is_trained or not methods.needs_teacher(config):
        return None
    teacher_config = ConfigDict(config.to_dict())
    teacher_config.method = config.teacher.method
    teacher_config.networks = (config.teacher.network,)
    teacher_config.shared_stages = 0
    teacher_config.epochs = config.teacher.epochs or config.epochs
    teacher_config.optimizer.learning_rate = (
        config.teacher.learning_rate or config.optimizer.learning_rate
    )
    teacher_config.teacher = configs.base().teacher
    teacher_config.pruning, teacher_config.start = configs.base().pruning, configs.base().start
    if teacher_config.wandb.project:
        teacher_config.wandb.name = f"teacher {teacher_config.networks[0]}"
    if methods.needs_teacher(teacher_config):
        raise UserError(
            f"config.teacher.method={teacher_config.method!r} needs a teacher itself; use "
            "'cross_entropy' or 'hssakd_teacher'"
        )
    return teacher_config.lock()


def check(config: ConfigDict) -> None:
    """Raises `UserError` if the method cannot use the teacher that the run trains.

    The method is built with a teacher without weights, so that errors occur before the training.
    """
    methods.create(
        config,
        num_classes=_NUM_CLASSES,
        axis_name=None,
        train_labels=np.arange(_NUM_CLASSES * config.batch_size) % _NUM_CLASSES,
        teacher=abstract_teacher(config, _NUM_CLASSES),
    )


def abstract_teacher(config: ConfigDict, num_classes: int) -> Network:
    """The teacher's network with abstract variables; no file is read.

    If the teacher is given by a checkpoint only, the student's network takes its place.
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
    """`config` with the path of the teacher's checkpoint, if the run trains its teacher."""
    if workdir is None or config_of_teacher(config) is None:
        return config
    config = ConfigDict(config.to_dict())
    config.teacher.checkpoint = str(directory(workdir))
    return config.lock()


def directory(workdir: Path) -> Path:
    """The directory in which the teacher of a run is trained."""
    return workdir / _SUBDIRECTORY


def finished(config: ConfigDict, workdir: Path) -> bool:
    """Whether the run of `config` in `workdir` is complete: its last epoch has been saved."""
    row = metric_files.last(workdir / "metrics.jsonl")
    if row is None or row.get("epoch", 0) < config.epochs:
        return False
    return (workdir / "checkpoints" / str(row["step"])).is_dir()
