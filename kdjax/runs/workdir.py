"""The frozen config and the package versions in a run's workdir."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

import kdjax
from kdjax import config as configs
from kdjax.errors import UserError
from kdjax.runs import contents, files, schema
from kdjax.runs.checkpoints import saved
from kdjax.runs.console import say

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_CONFIG_WAY_OUT = "restore it from a copy, or train in another --workdir"


@contextlib.contextmanager
def claimed(workdir: Path, config: ConfigDict, *, finished: bool = False) -> Iterator[None]:
    """Locks a workdir for a run while the block runs, and writes its config: `claim`.

    Args:
      workdir: the directory of the run.
      config: of the run.
      finished: whether nothing is left to train: what is written then stays as it is.

    Raises:
      UserError: another process writes to the workdir, it has other content or a run of another
        config, or it cannot be written to.
    """
    with contents.claimed(workdir, contents.RUN):
        check(workdir, config)
        if not finished:
            claim(workdir, config)
        yield


def check(workdir: Path, config: ConfigDict) -> None:
    """Checks that a workdir is free, or holds a run of the same config.

    A run without a finished checkpoint, for instance because it failed at its start, is replaced.

    Raises:
      UserError: the workdir holds something else, or a run of another config; the message names the
        settings that differ.
    """
    contents.check_kind(workdir, contents.RUN)
    path = workdir / "config.json"
    if path.exists() and saved(workdir / "checkpoints"):
        differences = configs.differences(_read_config(path), configs.plain(config))
        if differences:
            raise UserError(
                f"--workdir={workdir} holds a run of another config; different: "
                f"{', '.join(differences)}; use another --workdir, or the run's own settings"
            )


def claim(workdir: Path, config: ConfigDict) -> None:
    """Writes the config and the package versions of a run to its workdir.

    Raises:
      UserError: the directory cannot be created or written to.
    """
    if jax.process_index() != 0:
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.cannot_write(Path(f"--workdir={workdir}"), error) from error
    contents.mark(workdir, contents.RUN)
    text = json.dumps(configs.plain(config), indent=2) + "\n"
    files.write_atomically(workdir / "config.json", text)
    _write_versions(workdir / "versions.json")


def read_config(workdir: Path) -> ConfigDict:
    """The frozen config of a run.

    Raises:
      UserError: the workdir holds no run, or its config.json is damaged.
    """
    kind = contents.kind_of(workdir)
    path = workdir / "config.json"
    if not path.exists():
        content = f"a {kind}, not a run" if kind not in (contents.RUN, None) else "no run"
        raise UserError(f"--workdir={workdir} holds {content} (no config.json); train first")
    try:
        return ConfigDict(_read_config(path))
    except UserError:
        raise
    except (ValueError, TypeError) as error:  # a name that no setting can have
        raise UserError(f"{path} is damaged: {error}; {_CONFIG_WAY_OUT}") from error


def _read_config(path: Path) -> dict[str, Any]:
    settings = schema.read_object(path, {}, _CONFIG_WAY_OUT)
    settings = configs.completed(settings)
    try:
        configs.check_values(settings, others=True)
    except UserError as error:
        raise UserError(f"{path} is damaged: {error}; {_CONFIG_WAY_OUT}") from error
    return settings


def _write_versions(path: Path) -> None:
    versions = {
        "kdjax": kdjax.__version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
    }
    if path.exists():
        before = schema.read_object(path, {}, "restore it from a copy, or move it away")
        changed = [name for name in versions if before.get(name) != versions[name]]
        if changed:
            say(f"going on with other {', '.join(changed)} than before: not bit-identical")
    files.write_atomically(path, json.dumps(versions, indent=2) + "\n")


def _version(package: str) -> str | None:
    """The installed version, or None: grain, for one, is not needed by every run."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
