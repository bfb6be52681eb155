"""From a config to one of these methods."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from kdjax.data import order
from kdjax.errors import UserError
from kdjax.methods.base import Method
from kdjax.models import Cohort


class Clock(NamedTuple):
    """What methods that remember, or change with time, know of the run.

    Attributes:
      images: number of training images.
      steps_per_epoch: of the run.
      epochs: of the run.
    """

    images: int
    steps_per_epoch: int
    epochs: int


# What a method is called -> `(cohort, **settings) -> Method`, the settings being those of its
# section of `config.self_distill`.
METHODS: dict[str, Callable[..., Method]] = {}

# Those that compare images across devices, or count epochs, take `axis_name` or `clock` too.
_ACROSS_DEVICES: set[str] = set()
_WITH_CLOCK: set[str] = set()

# The least of a setting of `config.data` that a method works with.
_NEEDS = {"ddgsd": ("views", 2), "cs_kd": ("partners", 1), "bake": ("partners", 1)}


def build(
    config: ConfigDict, cohort: Cohort, axis_name: str | None, train_labels: np.ndarray | None
) -> Method:
    """The method that `config.method` names.

    Raises:
      UserError: images do not come as the method needs them, or it refuses its settings.
    """
    name = config.method
    _check_data(config)
    settings = dict(config.self_distill[name])
    if name in _ACROSS_DEVICES:
        settings["axis_name"] = axis_name
    if name in _WITH_CLOCK:
        if train_labels is None:
            raise ValueError(f"method {name!r} counts epochs: give train_labels")
        steps = order.steps_per_epoch(len(train_labels), config.batch_size)
        settings["clock"] = Clock(len(train_labels), steps, config.epochs)
    return METHODS[name](cohort, **settings)


def _check_data(config: ConfigDict) -> None:
    setting, least = _NEEDS.get(config.method, ("views", 1))
    if config.data[setting] < least:
        raise UserError(
            f"method {config.method!r} needs config.data.{setting}={least} or more "
            f"(it is {config.data[setting]})"
        )
