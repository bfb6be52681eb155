"""What a workdir holds besides checkpoints and metrics: the frozen config and the versions."""

import contextlib
import fcntl
import importlib.metadata
import json
import platform
from pathlib import Path

import jax
from ml_collections import ConfigDict

import kdjax
from kdjax import config as configs
from kdjax.errors import UserError
from kdjax.runs.checkpoints import saved
from kdjax.runs.console import say
from kdjax.runs.files import write_atomically

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def check(workdir: Path, config: ConfigDict) -> None:
    """Refuses a workdir that holds a run of another config.

    A run that has saved nothing yet, for instance because a setting was bad, holds nobody's place.

    Raises:
      UserError: it does; the message names the settings that differ.
    """
    path = workdir / "config.json"
    if path.exists() and saved(workdir / "checkpoints"):
        found = configs.differences(_read_config(path), configs.plain(config))
        if found:
            raise UserError(
                f"--workdir={workdir} holds a run of another config; different: "
                f"{', '.join(found)}; use another --workdir, or the run's own settings"
            )


def claim(workdir: Path, config: ConfigDict) -> None:
    """Writes config.json and versions.json.

    Raises:
      UserError: the directory cannot be made or written to.
    """
    if jax.process_index() != 0:
        return
    text = json.dumps(configs.plain(config), indent=2) + "\n"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_atomically(workdir / "config.json", text)
        _write_versions(workdir / "versions.json")
    except OSError as error:
        raise UserError(f"--workdir={workdir} cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def locked(workdir: Path):
    """Keeps other processes from training in `workdir` while the block runs.

    The system gives the lock back when the process ends, however it ends.

    Raises:
      UserError: another process trains there, or the directory cannot be written to.
    """
    if jax.process_index() != 0:
        yield
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = open(workdir / "lock", "w")  # noqa: SIM115 (closed by the block below)
    except OSError as error:
        raise UserError(f"--workdir={workdir} cannot be written: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another process trains in --workdir={workdir}; wait for it, or use another"
            ) from error
        except OSError as error:  # some network file systems have no locks
            say(f"--workdir={workdir} cannot be locked ({error.strerror}): run one process there")
        yield


def read_config(workdir: Path) -> ConfigDict:
    """The frozen config of a run.

    Raises:
      UserError: the workdir holds no run, or its config.json is damaged.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise UserError(f"--workdir={workdir} holds no run (no config.json); train first")
    return ConfigDict(_read_config(path))


def _read_config(path: Path) -> dict:
    try:
        return configs.completed(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({error}); remove it and give the run's own settings with --config"
        ) from error


def _version(package: str) -> str | None:
    """The installed version, or None: grain, for one, is not needed by every run."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _write_versions(path: Path) -> None:
    versions = {
        "kdjax": kdjax.__version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
    }
    before = {}
    with contextlib.suppress(OSError, ValueError):  # there is none, or it is damaged
        before = json.loads(path.read_text())
    if before:
        changed = [name for name in versions if before.get(name) != versions[name]]
        if changed:
            say(f"going on with other {', '.join(changed)} than before: not bit-identical")
    write_atomically(path, json.dumps(versions, indent=2) + "\n")
