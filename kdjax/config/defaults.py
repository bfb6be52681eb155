"""Every setting with its default, and the check of a whole config."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from kdjax import models
from kdjax import settings as declared
from kdjax.config.sections import Config
from kdjax.errors import UserError
from kdjax.methods.registry import METHODS

_SECTIONS = frozenset(field.name for field in dataclasses.fields(Config))


def base() -> ConfigDict:
    """Every setting of kdjax, with the defaults that are no paper's in particular.

    The sections are those of `kdjax.config.sections`, and one for every registered method.
    """
    config = declared.section(Config)
    for entry in METHODS.values():
        if dataclasses.fields(entry.settings) and entry.section not in config:
            config[entry.section] = declared.section(entry.settings)
    return config


def validate(config: ConfigDict) -> None:
    """Checks a config before anything is built; it reads no file and needs no device.

    Raises:
      UserError: an unknown setting, method or network, a value of another type or out of range, or
        settings that do not go together.
    """
    _check_complete(declared.section(Config), config, "config")
    check_values(config)
    METHODS[config.method].check(config)
    for name in config.networks:
        models.create(name, num_classes=2)  # a description: nothing is computed


def check_values(config: Mapping[str, Any], *, others: bool = False) -> None:
    """Checks every setting by itself: its type and its range, as `kdjax.settings` declares them.

    Args:
      config: all settings, or some.
      others: whether there may be sections of methods that are not registered here.

    Raises:
      UserError: an unknown setting, or a value of another type or out of range.
    """
    sections = {entry.section: entry.settings for entry in METHODS.values()}
    run = {}
    for name, value in config.items():
        if name in sections:
            declared.check_section(sections[name], value, f"config.{name}")
        elif not (others and _is_section(value) and name not in _SECTIONS):
            run[name] = value
    declared.check(Config, run, "config")


def _is_section(value: Any) -> bool:
    return isinstance(value, (Mapping, ConfigDict))


def _check_complete(expected: ConfigDict, config: ConfigDict, where: str) -> None:
    for name, value in expected.items():
        if name not in config:
            raise UserError(f"{where}.{name} is missing; begin with kdjax.config.base()")
        if isinstance(value, ConfigDict) and isinstance(config[name], ConfigDict):
            _check_complete(value, config[name], f"{where}.{name}")
