"""What a workdir holds besides checkpoints and metrics: the frozen config and the versions."""

import importlib.metadata
import json
import platform
from pathlib import Path

import jax
from ml_collections import ConfigDict

import kdjax
from kdjax import config as configs
from kdjax.errors import UserError
from kdjax.metrics import say, write_atomically

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "grain")


def check(workdir: Path, config: ConfigDict) -> None:
    """Refuses a workdir that holds a run of another config.

    Raises:
      UserError: it does; the message names the settings that differ.
    """
    path = workdir / "config.json"
    if path.exists():
        found = configs.differences(json.loads(path.read_text()), configs.plain(config))
        if found:
            raise UserError(
                f"--workdir={workdir} holds a run of another config; different: "
                f"{', '.join(found)}; use another --workdir, or the run's own settings"
            )


def claim(workdir: Path, config: ConfigDict) -> None:
    """Writes config.json and versions.json.

    Raises:
      UserError: the directory cannot be made.
    """
    if jax.process_index() != 0:
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir={workdir} cannot be made: {error.strerror}") from error
    text = json.dumps(configs.plain(config), indent=2) + "\n"
    write_atomically(workdir / "config.json", text)
    _write_versions(workdir / "versions.json")


def read_config(workdir: Path) -> ConfigDict:
    """The frozen config of a run.

    Raises:
      UserError: the workdir holds no run.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise UserError(f"--workdir={workdir} holds no run (no config.json); train first")
    return ConfigDict(json.loads(path.read_text()))


def _write_versions(path: Path) -> None:
    versions = {
        "kdjax": kdjax.__version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
    }
    if path.exists():
        before = json.loads(path.read_text())
        changed = [name for name in versions if before.get(name) != versions[name]]
        if changed:
            say(f"going on with other {', '.join(changed)} than before: not bit-identical")
    write_atomically(path, json.dumps(versions, indent=2) + "\n")
