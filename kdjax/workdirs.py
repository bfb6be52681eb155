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


def claim(workdir: Path, config: ConfigDict) -> None:
    """Makes `workdir` this config's: writes config.json and versions.json, or checks them.

    Raises:
      UserError: the workdir holds a run of another config.
    """
    path = workdir / "config.json"
    wanted = configs.plain(config)
    if path.exists():
        found = configs.differences(json.loads(path.read_text()), wanted)
        if found:
            raise UserError(
                f"--workdir={workdir} holds a run of another config; different: "
                f"{', '.join(found)}; use another --workdir, or the run's own settings"
            )
    if jax.process_index() == 0:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--workdir={workdir} cannot be made: {error.strerror}") from error
        write_atomically(path, json.dumps(wanted, indent=2) + "\n")
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
