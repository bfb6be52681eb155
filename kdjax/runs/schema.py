"""JSON files that are read back: whatever is in them, they are right or refused in one line."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kdjax.errors import UserError

_MAX_BYTES = 64 * 2**20

# Returns what is wrong with a value, or None.
Check = Callable[[Any], str | None]


class Damaged(ValueError):
    """A file that is not what was written. The message names neither the file nor the way out."""


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
      Damaged: it is missing, no JSON, or too large to be one of kdjax's.
    """
    try:
        check_regular(path)
        if path.stat().st_size > _MAX_BYTES:
            raise Damaged(f"it is larger than {_MAX_BYTES} bytes")
        return parse(path.read_bytes())
    except OSError as error:
        raise Damaged(error.strerror or str(error)) from error


def check_regular(path: Path) -> None:
    """Checks that reading a file ends: a named pipe may never deliver, a device for ever.

    Raises:
      Damaged: it is no regular file.
      OSError: it cannot be looked up.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise Damaged("it is not a regular file")


def parse(text: bytes) -> Any:
    """The value of a JSON text.

    Raises:
      Damaged: it is none.
    """
    if not text.strip():
        raise Damaged("it is empty")
    try:
        return json.loads(text.decode(), parse_constant=_no_constant)
    except RecursionError as error:
        raise Damaged("its values are nested too deeply") from error
    except ValueError as error:
        raise Damaged(" ".join(str(error).split())) from error


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def checked(value: Any, fields: Mapping[str, Check], where: str = "it") -> dict[str, Any]:
    """`value`, if it is an object whose fields pass their checks.

    Args:
      value: of a JSON file.
      fields: a check for every field that must be there; others are left alone.
      where: what the value is, for the message.

    Raises:
      Damaged: it is not.
    """
    if not isinstance(value, dict):
        raise Damaged(f"{where} is {kind_of(value)}, not an object")
    for name, check in fields.items():
        if name not in value:
            raise Damaged(f"{where} has no {name!r}")
        if (fault := check(value[name])) is not None:
            raise Damaged(f"{name!r} {fault}")
    return value


def read_object(path: Path, fields: Mapping[str, Check], way_out: str) -> dict[str, Any]:
    """The object in a JSON file, whose fields pass their checks.

    Args:
      path: of the file.
      fields: as in `checked`.
      way_out: what the user can do about a file that is damaged.

    Raises:
      UserError: it is missing or anything else than that.
    """
    try:
        return checked(read_json(path), fields)
    except Damaged as error:
        raise UserError(f"{path} is damaged: {error}; {way_out}") from error


def kind_of(value: Any) -> str:
    """A value's kind as JSON calls it, with the value where it is short."""
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value"}
    if value is None:
        return "null"
    text = repr(value)
    return f"{names.get(type(value), 'a number')}{f' ({text})' if len(text) < 20 else ''}"


def integer(low: int, high: int) -> Check:
    """Checks for an integer in [low, high]."""

    def check(value: Any) -> str | None:
        if type(value) is not int:
            return f"is {kind_of(value)}, not an integer"
        return None if low <= value <= high else f"is {value}, not in [{low}, {high}]"

    return check


def number(value: Any) -> str | None:
    """Checks for a finite number."""
    if type(value) not in (int, float):
        return f"is {kind_of(value)}, not a number"
    return None if abs(value) <= sys.float_info.max else "is not finite"


def text(value: Any) -> str | None:
    """Checks for a string."""
    return None if isinstance(value, str) else f"is {kind_of(value)}, not text"


def one_of(*values: str) -> Check:
    """Checks for one of some strings."""

    def check(value: Any) -> str | None:
        return None if value in values else f"is {kind_of(value)}, not one of {', '.join(values)}"

    return check


def mapping(check: Check) -> Check:
    """Checks for an object of any names whose values pass a check."""

    def check_all(value: Any) -> str | None:
        if not isinstance(value, dict):
            return f"is {kind_of(value)}, not an object"
        for name, item in value.items():
            if (fault := check(item)) is not None:
                return f"has {name!r}, which {fault}"
        return None

    return check_all


def listing(check: Check) -> Check:
    """Checks for a list whose values pass a check."""

    def check_all(value: Any) -> str | None:
        if not isinstance(value, list):
            return f"is {kind_of(value)}, not a list"
        return next((fault for item in value if (fault := check(item)) is not None), None)

    return check_all
