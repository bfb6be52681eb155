"""Configs from files: a config file with its arguments, or the `config.json` of a run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from kdjax.config.defaults import check_values
from kdjax.config.saved import completed
from kdjax.config_names import located_value
from kdjax.data.regular_files import expanded, is_regular
from kdjax.errors import UserError
from kdjax.runs import schema


def read(text: str) -> ConfigDict:
    """The config that `--config=TEXT` names on the command line, to be changed and trained.

        config = kdjax.config.read("mcl:digits")
        config.epochs = 3
        again = kdjax.config.read("runs/digits/config.json")

    A config file is a program: it is executed, with what it registers.

    Args:
      text: 'NAME' or 'NAME:ARGUMENTS' of an installed config, 'FILE.py' or 'FILE.py:ARGUMENTS', or
        the 'config.json' of a run.

    Returns:
      The config, without a lock on its values.

    Raises:
      UserError: there is no such file, it gives no config, or its settings cannot be used.
    """
    name, colon, arguments = located_value(text).partition(":")
    path = expanded(name, "config")
    if not is_regular(path):
        raise UserError(f"config={text!r}: no such file; name one, or a config such as mcl:digits")
    function = getattr(_module(path, text), "get_config", None)
    if not callable(function):
        raise UserError(f"config={text!r}: the file defines no function get_config")
    config = function(arguments) if colon else function()
    if not isinstance(config, ConfigDict):
        raise UserError(f"config={text!r}: get_config returns no ConfigDict")
    return ConfigDict(config.to_dict())  # a copy of a locked one is not locked


def from_json(path: Path) -> ConfigDict:
    """The config in the `config.json` of a run, with the types that its settings are declared with.

    Settings that the file lacks have their defaults.

    Raises:
      UserError: the file is missing or damaged, or a value cannot be used.
    """
    way_out = "name the config.json of a run, or restore it from a copy"
    settings = completed(schema.read_object(path, {}, way_out))
    try:
        check_values(settings, others=True)
    except UserError as error:
        raise UserError(f"{path} is damaged: {error}; {way_out}") from error
    return ConfigDict(_with_tuples(settings))


def _with_tuples(value: Any) -> Any:
    """JSON values with tuples in place of lists: no setting is a list."""
    if isinstance(value, dict):
        return {name: _with_tuples(item) for name, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def _module(path: Path, text: str) -> Any:
    """The module of a config file, executed.

    Raises:
      UserError: the file is no Python module.
    """
    specification = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    if specification is None or specification.loader is None:
        raise UserError(f"config={text!r}: not a Python file; name one such as configs/mcl.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module
