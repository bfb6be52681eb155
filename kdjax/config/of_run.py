"""The config of a run as a config file: `--config runs/mcl/config.json`."""

from pathlib import Path

from ml_collections import ConfigDict

from kdjax.config.reading import from_json


def get_config(path: str) -> ConfigDict:
    """The config in the `config.json` of a run."""
    return from_json(Path(path)).lock()
