"""Settings declared once: the fields of frozen dataclasses, with default, range and meaning.

A section of the config is such a dataclass. From it follow the section's defaults (`section`), what
its values must be (`check`), and the text of `--help`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import typing
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from kdjax.errors import UserError
from kdjax.registry import joined

_RULE = "rule"
# Steps, places and counts are 32-bit integers on the device.
_LARGEST = 2**31 - 1
_SHOWN = 120  # characters of a value in a message


class Rule(NamedTuple):
    """What the values of a setting mean, and which are allowed.

    Attributes:
      text: what it means, with its unit.
      at_least: the smallest value allowed.
      above: a bound that the value must exceed.
      at_most: the largest value allowed.
      below: a bound that the value must stay under.
      choices: the values allowed; None for any.
    """

    text: str
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] | None = None

    def refusal(self, value: Any) -> str | None:
        """Why a value is not allowed, to be read after it, or None."""
        if self.choices is not None and value not in self.choices:
            named = [choice for choice in self.choices if choice != ""]
            return f" is unknown; use {joined(named)}"
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            return None
        number: Any = value  # to type checkers, `numbers.Real` has no order
        if isinstance(value, numbers.Integral):
            if self.at_most is None and abs(number) > _LARGEST:
                return f": must be at most {_LARGEST} in size"
            return None if self._contains(number) else f": must be {self.range()}"
        if not math.isfinite(number):
            return ": must be finite"
        if not self._contains(number):
            return f": must be {self.range()}"
        rounded = _rounded(number)
        if math.isfinite(rounded) and self._contains_inside(rounded):
            return None
        return f": must be {self.range() or 'finite'} as a float32, which it is computed with"

    def _contains(self, value: float) -> bool:
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def _contains_inside(self, rounded: float) -> bool:
        """Whether a float32 lies within the bounds that a value must not reach."""
        return (self.above is None or rounded > _rounded(self.above)) and (
            self.below is None or rounded < _rounded(self.below)
        )

    def range(self) -> str:
        """The range in words, such as 'at least 0 and less than 1'."""
        words = []
        if self.at_least is not None:
            words.append(f"at least {self.at_least:g}")
        if self.above is not None:
            words.append("positive" if self.above == 0 else f"greater than {self.above:g}")
        if self.at_most is not None:
            words.append(f"at most {self.at_most:g}")
        if self.below is not None:
            words.append(f"less than {self.below:g}")
        return " and ".join(words)


def _rounded(value: float) -> float:
    with np.errstate(over="ignore", under="ignore"):
        return float(np.float32(value))


def setting(default: Any, text: str = "", **bounds: Any) -> Any:
    """A field of a section, for the body of a frozen dataclass (or of a flax module).

    Args:
      default: its default.
      text: what it means.
      **bounds: `at_least`, `above`, `at_most`, `below`, `choices` of `Rule`. Bounds of a tuple hold
        for every entry.
    """
    return dataclasses.field(default=default, metadata={_RULE: Rule(text, **bounds)})


def rule(field: dataclasses.Field[Any]) -> Rule:
    """The rule of a field; without one, a rule that allows anything of the field's type."""
    return field.metadata.get(_RULE, Rule(""))


def section(kind: type) -> ConfigDict:
    """A section's defaults; nested dataclasses are nested sections."""
    config = ConfigDict()
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(_types(kind)[field.name]):
            config[field.name] = section(_types(kind)[field.name])
        else:
            config[field.name] = field.default
    return config


def check(kind: type, values: Mapping[str, Any], where: str) -> Any:
    """The settings as an instance of their dataclass.

    Args:
      kind: the frozen dataclass. Its `__post_init__` may raise a ValueError about settings that do
        not go together.
      values: all its settings, or some.
      where: what they are called, such as 'config.mcl'.

    Raises:
      UserError: an unknown setting, a value of another type or out of range, or settings that do
        not go together.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    checked = {}
    for name, value in values.items():
        path = f"{where}.{name}"
        if name not in fields:
            raise UserError(f"{path} is no setting; there are {', '.join(fields)}")
        declared = _types(kind)[name]
        if isinstance(declared, type) and dataclasses.is_dataclass(declared):
            checked[name] = check_section(declared, value, path)
        else:
            checked[name] = _checked(value, declared, rule(fields[name]), path)
    try:
        return kind(**checked)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def check_section(kind: type, value: Any, where: str) -> Any:
    """As `check`, of a value that may be no section at all.

    Raises:
      UserError: it is none, or as `check`.
    """
    if not isinstance(value, (Mapping, ConfigDict)):
        raise UserError(f"{where}={shown(value)}: must be a section of settings")
    return check(kind, dict(value.items()), where)


def shown(value: Any) -> str:
    """A value as Python writes it, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than some thousand digits
        text = f"a number of {value.bit_length()} bits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _checked(value: Any, declared: Any, allowed: Rule, path: str) -> Any:
    if typing.get_origin(declared) is tuple:
        entry = typing.get_args(declared)[0]
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise UserError(f"{path}={shown(value)}: must be a tuple of {_NAMES[entry]}s")
        return tuple(_checked_entry(item, entry, allowed, path, value) for item in value)
    return _checked_entry(value, declared, allowed, path, value)


def _checked_entry(item: Any, declared: type, allowed: Rule, path: str, value: Any) -> Any:
    """`item`, which is `value` itself or an entry of it."""
    if not _is(item, declared):
        kind = f"a {_NAMES[declared]}" if item is value else f"{_NAMES[declared]}s"
        raise UserError(f"{path}={shown(value)}: must be {kind}")
    if declared is float:
        item = _float(item)
    if refusal := allowed.refusal(item):
        raise UserError(f"{path}={shown(value)}{refusal}")
    return declared(item)


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf if value > 0 else -math.inf


_NAMES = {bool: "truth value", int: "whole number", float: "number", str: "string"}


def _is(value: Any, declared: type) -> bool:
    if declared is bool:
        return isinstance(value, bool)
    if declared is str:
        return isinstance(value, str)
    if isinstance(value, bool):
        return False
    return isinstance(value, numbers.Integral if declared is int else numbers.Real)


@functools.cache
def _types(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def is_setting(field: dataclasses.Field[Any]) -> bool:
    """Whether a field was made by `setting`."""
    return _RULE in field.metadata
