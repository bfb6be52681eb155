"""How a method is registered: one file says all of it.

`register` stands beside a method and names its settings, what it needs and reads, and where it
comes from. From that follow `config.<section>`, the checks of a config, the defaults of
`config.data`, whether a teacher is needed, and the tables of the docs.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from kdjax import settings as declared
from kdjax.data.objects.augmentation import Augmentation
from kdjax.errors import UserError
from kdjax.methods.base import Method
from kdjax.models import Cohort
from kdjax.registry import Registry

# What a method reads of its networks' outputs.
LOGITS, FEATURES = "logits", "features"


class Clock(NamedTuple):
    """The length of a run.

    Attributes:
      images: number of training images.
      steps_per_epoch: of the run.
      epochs: of the run.
    """

    images: int
    steps_per_epoch: int
    epochs: int


class Context(NamedTuple):
    """What a method may ask for besides its cohort and settings, by keywords of these names.

    Attributes:
      axis_name: the mapped device axis, or None.
      clock: length of the run; None where there are no training labels.
      partners: `config.data.partners`.
      train_labels: `[images]` classes of the training split.
      learning_rate: `config.optimizer.learning_rate`.
      schedule: the learning rate of a step, `config.optimizer`'s; None where nothing is trained.
      teacher: `() -> kdjax.methods.create.Teacher`, which reads the trained network.
    """

    axis_name: str | None
    clock: Clock | None
    partners: int
    train_labels: np.ndarray | None
    learning_rate: float
    schedule: Callable[[jax.Array], jax.Array] | None
    teacher: Callable[[], Any]


class DataNeed(NamedTuple):
    """What a setting of `config.data` must be for a method.

    Attributes:
      at_least: its smallest value.
      default: what configs of the method set; None leaves it to them.
      reason: why, to complete "method 'x' ...".
    """

    at_least: int
    default: int | None = None
    reason: str = "needs it"


@dataclasses.dataclass(frozen=True)
class NoSettings:
    """The settings of a method without any."""


@dataclasses.dataclass(frozen=True)
class MethodEntry:
    """All that is known of a registered method.

    Attributes:
      name: `config.method`.
      build: `(cohort, settings, **context) -> Method`.
      settings: frozen dataclass of its settings.
      section: where they stand, `config.<section>`.
      family: the file of `configs/` that runs it.
      reads: LOGITS or FEATURES; channels inside a network that is read by its logits alone may be
        removed while it is trained.
      networks: the smallest number of networks.
      data: needs by the settings of `config.data`.
      teacher_if: whether the settings ask for a teacher, where `build` has `teacher` with a
        default.
      continues_teacher: whether that teacher is the method's own network, which then sees images
        normalized as the teacher does.
      check_config: raises `UserError` where settings of other sections do not go with the method.
      masks: whether it learns from masks, the classes of pixels, in place of images' classes.
      objects: `settings -> Augmentation` of images and their objects, where it learns from these,
        in boxes, in place of images' classes; None where it does not.
      transfers: whether it has another head in the place of its networks' classifiers, which reads
        any number of channels: `config.start` may have other classes, and filters may be gone.
      source: paper, and equation or official file.
      paper: the paper's number, in a line.
    """

    name: str
    build: Callable[..., Method]
    settings: type = NoSettings
    section: str = ""
    family: str = ""
    reads: str = FEATURES
    networks: int = 1
    data: Mapping[str, DataNeed] = dataclasses.field(default_factory=dict)
    teacher_if: Callable[[Any], bool] | None = None
    continues_teacher: bool = False
    check_config: Callable[[ConfigDict], None] | None = None
    masks: bool = False
    objects: Callable[[Any], Augmentation] | None = None
    transfers: bool = False
    source: str = ""
    paper: str = ""

    @functools.cached_property
    def context(self) -> tuple[str, ...]:
        """The names of `Context` that `build` asks for."""
        parameters = inspect.signature(self.build).parameters
        return tuple(name for name in Context._fields if name in parameters)

    @property
    def needs_clock(self) -> bool:
        """Whether `build` cannot do without the length of the run."""
        parameters = inspect.signature(self.build).parameters
        return "clock" in parameters and parameters["clock"].default is inspect.Parameter.empty

    def check(self, config: ConfigDict) -> Any:
        """The method's settings, checked with what it needs of the config.

        Raises:
          UserError: a setting out of range, too few networks, or images that do not come as the
            method needs them.
        """
        checked = declared.check(
            self.settings, config.get(self.section, {}), f"config.{self.section}"
        )
        self.check_networks(len(config.networks))
        for name, need in self.data.items():
            if config.data[name] < need.at_least:
                raise UserError(
                    f"method {self.name!r} {need.reason}; set config.data.{name} to "
                    f"{need.at_least} or more (it is {config.data[name]})"
                )
        if self.check_config is not None:
            self.check_config(config)
        return checked

    def check_networks(self, count: int) -> None:
        """Checks that the method can train `count` networks.

        Raises:
          UserError: it cannot.
        """
        if not count:
            raise UserError("config.networks is empty; name at least one network")
        if count < self.networks:
            words = {2: "two"}.get(self.networks, str(self.networks))
            raise UserError(
                f"method {self.name!r} needs at least {words} networks in config.networks"
            )

    def needs_teacher(self, config: ConfigDict) -> bool:
        """Whether the method learns from the trained network that `config.teacher` names."""
        if self.teacher_if is None:
            return "teacher" in self.context
        return self.teacher_if(config[self.section])


METHODS: Registry[MethodEntry] = Registry("method", "config.method")


def register(
    name: str, *, settings: type = NoSettings, **fields: Any
) -> Callable[[Callable[..., Method]], Callable[..., Method]]:
    """Registers a method: a decorator of `(cohort, settings, **context) -> Method`.

    What it decorates may have keyword parameters named as the fields of `Context`. What comes out
    is called `(cohort, **settings and context)`, fills in defaults and checks ranges.

    Args:
      name: `config.method`.
      settings: a frozen dataclass of fields made by `kdjax.settings.setting`.
      **fields: of `MethodEntry`. `section` and `family` are the name unless given.

    Raises:
      ValueError: the name is registered already, by another definition, or a field is unknown.
    """
    fields = {"section": name, "family": name} | fields

    def decorate(build: Callable[..., Method]) -> Callable[..., Method]:
        entry = METHODS.add(name, MethodEntry(name, build, settings, **fields), build)

        @functools.wraps(build)
        def method(cohort: Cohort, *positional: Any, **keywords: Any) -> Method:
            context = {key: keywords.pop(key) for key in entry.context if key in keywords}
            entry.check_networks(len(cohort.networks))
            checked = declared.check(settings, keywords, f"config.{entry.section}")
            return finished(entry, build(cohort, checked, *positional, **context))

        return method

    return decorate


def finished(entry: MethodEntry, method: Method) -> Method:
    """Sets the fields of a method that follow from its registration."""
    return method._replace(logits_only=entry.reads == LOGITS)


def use(config: ConfigDict, name: str) -> None:
    """Makes `name` the method of a config, with the defaults of `config.data` that it needs.

    Raises:
      UserError: an unknown method.
    """
    config.method = METHODS[name].name
    for setting, need in METHODS[name].data.items():
        if need.default is not None:
            config.data[setting] = need.default
