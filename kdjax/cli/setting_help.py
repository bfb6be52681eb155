"""What `--help` shows of a config: its settings, with values, meanings, defaults and ranges."""

from __future__ import annotations

import dataclasses
import textwrap
import typing
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from kdjax import settings as declared

_WIDTH = 100


def text(config: ConfigDict) -> str:
    """The settings of a config, one a paragraph: those of every run, and those of its method.

    Raises:
      UserError: the method is not registered.
    """
    from kdjax.config.sections import Config  # late: they import jax
    from kdjax.methods.registry import METHODS

    entry = METHODS[config.method]
    lines = ["Settings of this config, each with its value; --config.KEY=VALUE changes it:"]
    lines += _lines(Config, config, "config")
    if entry.section in config:
        lines += _lines(entry.settings, config[entry.section], f"config.{entry.section}")
    return "\n".join(lines)


def _lines(kind: type, values: ConfigDict, where: str) -> Iterator[str]:
    """The paragraphs of a section and of those inside of it."""
    types = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        name = f"{where}.{field.name}"
        if dataclasses.is_dataclass(types[field.name]):
            yield from _lines(types[field.name], values[field.name], name)
        else:
            value = values.get(field.name, field.default)
            yield textwrap.fill(
                f"--{name}={_shown(value)}: {_meaning(field, value)}",
                _WIDTH,
                initial_indent="  ",
                subsequent_indent="      ",
            )


def _meaning(field: dataclasses.Field[Any], value: Any) -> str:
    rule = declared.rule(field)
    notes = [rule.range()] if rule.range() else []
    if rule.choices:
        notes.append("one of " + ", ".join(repr(choice) for choice in rule.choices))
    if _shown(value) != _shown(field.default):
        notes.append(f"default: {_shown(field.default)}")
    return f"{rule.text} ({'; '.join(notes)})" if notes else rule.text


def _shown(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, tuple) and value and all(isinstance(item, str) for item in value):
        return ",".join(value)
    return value if isinstance(value, str) and value else repr(value)
