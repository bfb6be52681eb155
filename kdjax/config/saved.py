"""What belongs to the config of a run as it is saved: `config.json`."""

import json
from typing import Any

from ml_collections import ConfigDict

from kdjax.config.defaults import base

# What a run may be resumed with in another value: it changes no step already made.
RESUMABLE = (
    "epochs",
    "steps_per_dispatch",
    "parallel",
    "remat",
    "evaluation",
    "checkpoint",
    "wandb",
    "data.workers",
    "data.dir",
    "start.checkpoint",
    "teacher.checkpoint",
)


def plain(config: ConfigDict) -> dict[str, Any]:
    """The config as JSON would give it back: tuples become lists."""
    return json.loads(config.to_json())


def completed(settings: dict[str, Any], defaults: dict[str, Any] | None = None) -> dict[str, Any]:
    """The settings of a run, with the defaults of those that kdjax did not have when it began."""
    defaults = plain(base()) if defaults is None else defaults
    filled = defaults | settings
    for name, default in defaults.items():
        if isinstance(default, dict) and isinstance(settings.get(name), dict):
            filled[name] = completed(settings[name], default)
    return filled


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the settings that differ, those of `RESUMABLE` left out."""
    changed = []
    for key in sorted(old.keys() | new.keys()):
        name = f"{prefix}{key}"
        if name in RESUMABLE or old.get(key) == new.get(key):
            continue
        if isinstance(old.get(key), dict) and isinstance(new.get(key), dict):
            changed += differences(old[key], new[key], f"{name}.")
        else:
            changed.append(name)
    return changed
