"""From a config to one of these methods."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from kdjax.data import order
from kdjax.errors import UserError
from kdjax.methods.base import Method
from kdjax.methods.self_distill.batches import bake, cs_kd, ddgsd
from kdjax.methods.self_distill.branches import byot, dks
from kdjax.methods.self_distill.maps import frskd, sad
from kdjax.methods.self_distill.memory import ps_kd
from kdjax.methods.self_distill.mixing import cutmix, manifold_mixup, mixup
from kdjax.methods.self_distill.regularizers import (
    focal,
    label_smoothing,
    max_entropy,
    tf_kd,
    virtual_softmax,
)
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
METHODS: dict[str, Callable[..., Method]] = {
    "bake": bake,
    "byot": byot,
    "cs_kd": cs_kd,
    "cutmix": cutmix,
    "ddgsd": ddgsd,
    "dks": dks,
    "focal": focal,
    "frskd": frskd,
    "label_smoothing": label_smoothing,
    "manifold_mixup": manifold_mixup,
    "max_entropy": max_entropy,
    "mixup": mixup,
    "ps_kd": ps_kd,
    "sad": sad,
    "tf_kd": tf_kd,
    "virtual_softmax": virtual_softmax,
}

# Those that compare images across devices, count epochs, or tell images from their partners take
# `axis_name`, `clock` or `partners` too.
_ACROSS_DEVICES = {"bake", "ddgsd", "ps_kd"}
_WITH_CLOCK = {"ps_kd"}
_WITH_PARTNERS = {"cs_kd"}

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
    if name in _WITH_PARTNERS:
        settings["partners"] = config.data.partners
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
