"""Configs by name: `mcl:digits` is `configs/mcl.py:digits`, a run's config.json is a config too."""

from __future__ import annotations

import re
from pathlib import Path

from kdjax import configs
from kdjax.errors import UserError

_FLAGS = ("--config", "-config")
_NAME = re.compile(r"\w+")
_OF_RUNS = Path(__file__).parent / "config" / "of_run.py"


def names() -> list[str]:
    """The names of the installed configs."""
    return sorted(path.stem for path in _directory().glob("[!_]*.py"))


def located(argv: list[str]) -> list[str]:
    """The command line with the file in place of a config's name.

    A value that is not a plain name (`NAME` or `NAME:ARGUMENTS`) is left as it is; so is one that
    names a file of the working directory. The config.json of a run becomes the argument of a file
    that reads it.

    Raises:
      UserError: no config has this name.
    """
    replaced = list(argv)
    for place, argument in enumerate(argv):
        flag, equals, value = argument.partition("=")
        if flag not in _FLAGS:
            continue
        if equals:
            replaced[place] = f"{flag}={located_value(value)}"
        elif place + 1 < len(argv):
            replaced[place + 1] = located_value(argv[place + 1])
    return replaced


def located_value(value: str) -> str:
    """The config file and its arguments that a value of `--config` stands for.

    Args:
      value: 'NAME' or 'NAME:ARGUMENTS' of an installed config, the config.json of a run, or
        'FILE.py' or 'FILE.py:ARGUMENTS', which is returned as it is.

    Raises:
      UserError: no config has this name.
    """
    name, colon, arguments = value.partition(":")
    if value.endswith(".json"):
        return f"{_OF_RUNS}:{value}"
    if not _NAME.fullmatch(name) or Path(name).is_file():
        return value
    known = names()
    if name not in known:
        raise UserError(
            f"--config={value}: there is no config {name}; name a file, or one of "
            + ", ".join(known)
        )
    return f"{_directory() / name}.py{colon}{arguments}"


def _directory() -> Path:
    return Path(configs.__path__[0])
