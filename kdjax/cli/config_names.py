"""The installed configs by name: `--config mcl:digits` is `--config configs/mcl.py:digits`."""

from __future__ import annotations

import re
from pathlib import Path

from kdjax import configs
from kdjax.errors import UserError

_FLAGS = ("--config", "-config")
_NAME = re.compile(r"\w+")


def names() -> list[str]:
    """The names of the installed configs."""
    return sorted(path.stem for path in _directory().glob("[!_]*.py"))


def located(argv: list[str]) -> list[str]:
    """The command line with the file in place of a config's name.

    A value that is not a plain name (`NAME` or `NAME:ARGUMENTS`) is left as it is; so is one that
    names a file of the working directory.

    Raises:
      UserError: no config has this name.
    """
    replaced = list(argv)
    for place, argument in enumerate(argv):
        flag, equals, value = argument.partition("=")
        if flag not in _FLAGS:
            continue
        if equals:
            replaced[place] = f"{flag}={_located(value)}"
        elif place + 1 < len(argv):
            replaced[place + 1] = _located(argv[place + 1])
    return replaced


def _located(value: str) -> str:
    """The file of a config's name, with the arguments that follow it."""
    name, colon, arguments = value.partition(":")
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
