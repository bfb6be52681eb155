"""Teachers of a run: named by directory, or trained first in the run's own workdir."""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from kdjax import config as configs
from kdjax import methods
from kdjax import metrics as metric_files
from kdjax.errors import UserError

_SUBDIRECTORY = "teacher"


def config_of_teacher(config: ConfigDict) -> ConfigDict | None:
    """The config of the run that trains a run's teacher, or None where none is to be trained.

    It is the run's own with the method `config.teacher.method`, the network
    `config.teacher.network` and, if given, `config.teacher.epochs`.

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
    own.teacher = configs.base().teacher
    if methods.needs_teacher(own):
        raise UserError(
            f"config.teacher.method={own.method!r} needs a teacher itself; use 'cross_entropy' or "
            "'hssakd_teacher'"
        )
    return own.lock()


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
    rows = metric_files.read(workdir / "metrics.jsonl")
    if not rows or rows[-1]["epoch"] < config.epochs:
        return False
    return (workdir / "checkpoints" / str(rows[-1]["step"])).is_dir()
