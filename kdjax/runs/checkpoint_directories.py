"""The directories of checkpoints: finished ones have their step as their name.

Each is renamed to that name when it is whole, and to another one before it is deleted.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import jax
from jax.experimental import multihost_utils

from kdjax.errors import UserError
from kdjax.runs import files

SET_ASIDE = ".damaged"
_UNFINISHED, _OBSOLETE = ".orbax-checkpoint-tmp", ".obsolete"
_STEP = re.compile("0|[1-9][0-9]{0,14}")  # the name of a finished checkpoint


def steps(directory: Path) -> list[int]:
    """The steps of the finished checkpoints.

    Raises:
      UserError: the directory cannot be read.
    """
    try:
        return [int(path.name) for path in directory.iterdir() if _STEP.fullmatch(path.name)]
    except OSError as error:
        raise UserError(f"{directory} cannot be read: {error.strerror}") from error


def prepare(directory: Path) -> None:
    """Makes the directory, and removes what killed processes left unfinished.

    Raises:
      UserError: it cannot be made or written to.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            for path in directory.iterdir():
                if _UNFINISHED in path.name or path.name.endswith(_OBSOLETE):
                    _remove(path)
    except OSError as error:
        raise files.cannot_write(directory, error) from error
    _synchronize("kdjax_checkpoints_prepared")


def remove_others(directory: Path, keep: Iterable[int | None]) -> None:
    """Removes the finished checkpoints but some.

    Args:
      directory: of checkpoints.
      keep: the steps of those that stay.

    Raises:
      UserError: one cannot be removed.
    """
    if jax.process_index() == 0:
        for step in set(steps(directory)) - set(keep):
            path = directory / str(step)
            try:  # a reader sees a whole checkpoint or none
                _remove(path.rename(path.with_name(f"{step}{_OBSOLETE}")))
            except OSError as error:
                raise files.cannot_write(path, error) from error


def set_aside(directory: Path, damaged: Iterable[int]) -> None:
    """Renames damaged checkpoints, so that their steps can be saved again.

    Raises:
      UserError: one cannot be renamed.
    """
    _synchronize("kdjax_checkpoints_read")
    if jax.process_index() == 0:
        for step in damaged:
            path = directory / str(step)
            aside = path.with_name(f"{step}{SET_ASIDE}")
            try:
                if os.path.lexists(aside):  # of the same step, damaged once before
                    _remove(aside)
                path.rename(aside)
            except OSError as error:
                raise files.cannot_write(path, error) from error
    _synchronize("kdjax_checkpoints_set_aside")


def _remove(path: Path) -> None:
    """Removes a directory, or whatever stands in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _synchronize(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
