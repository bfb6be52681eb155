"""Rows of metrics to Weights & Biases, where a config asks for it."""

from __future__ import annotations

import dataclasses
import importlib.util
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdjax.errors import UserError
from kdjax.runs.files import write_atomically
from kdjax.settings import setting

_ID = "wandb_id.txt"  # in the workdir: a run that is resumed goes on in the same run of wandb


@dataclasses.dataclass(frozen=True)
class Wandb:
    """`config.wandb`: metrics to Weights & Biases, beside `metrics.jsonl`."""

    project: str = setting("", "where the run is shown; '': nothing is sent")
    name: str = setting("", "of the run there; '': its workdir's")
    mode: str = setting(
        "online",
        "offline: written to WORKDIR/wandb, to be sent by `wandb sync`",
        choices=("online", "offline"),
    )


def check(settings: Any) -> None:
    """Checks that the package is there if it is needed.

    Args:
      settings: `config.wandb`.

    Raises:
      UserError: it is not.
    """
    if settings.project and importlib.util.find_spec("wandb") is None:
        raise UserError(
            f"config.wandb.project={settings.project!r} needs the package wandb: "
            "pip install 'kdjax[wandb]'"
        )


class WandbWriter:
    """Sends rows to a run of Weights & Biases.

    Args:
      workdir: the directory of the run, which keeps the run's identifier there.
      settings: `config.wandb`, with a project.
      config: all settings of the run, JSON values.

    Raises:
      UserError: wandb cannot begin a run: no login, no network, or a refused name.
    """

    def __init__(self, workdir: Path, settings: Any, config: Mapping[str, Any]):
        import wandb

        file = workdir / _ID
        if not file.exists():
            write_atomically(file, uuid.uuid4().hex.encode())
        try:
            self._run = wandb.init(
                project=settings.project,
                name=settings.name or workdir.absolute().name,
                mode=settings.mode,
                dir=str(workdir),
                id=file.read_text(),
                resume="allow",
                config=dict(config),
            )
        except Exception as error:  # wandb's errors have no class in common
            line = " ".join(str(error).split())
            raise UserError(
                f"config.wandb.project={settings.project!r}: {type(error).__name__}: {line}; set "
                "config.wandb.mode='offline', or project to ''"
            ) from error

    def write(self, row: Mapping[str, float]) -> None:
        """Sends one row; it must have 'step'."""
        self._run.log(dict(row), step=int(row["step"]))

    def close(self) -> None:
        """Ends the run there."""
        self._run.finish()


def writers(workdir: Path, settings: Any, config: Mapping[str, Any]) -> tuple[WandbWriter, ...]:
    """The writer that `config.wandb` asks for, if it does.

    Raises:
      UserError: as `WandbWriter`.
    """
    return (WandbWriter(workdir, settings, config),) if settings.project else ()
