"""Registration of distillation baselines as methods."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from kdjax.methods import base
from kdjax.methods.baselines.distillation.comparison import Baseline, Batch, Terms
from kdjax.methods.baselines.distillation.student import distill
from kdjax.methods.registry import FEATURES, Clock, register
from kdjax.models import Cohort, Outputs
from kdjax.settings import is_setting, setting

# The baselines by the names of their methods.
BASELINES: dict[str, Callable[..., Baseline]] = {}


def register_baseline(
    name: str,
    *,
    weight: float,
    label_weight: float = 1.0,
    reads: str = FEATURES,
    source: str = "",
    paper: str = "",
    family: str = "distill",
) -> Callable[[type[Baseline]], type[Baseline]]:
    """Registers a `Baseline` as the method `name`: a decorator of its class.

    `config.<name>` has the class's own settings, and the weights of `distill`.

    Args:
      name: `config.method`.
      weight: of the baseline's loss, by default.
      label_weight: of the cross entropy, by default.
      reads: `LOGITS` if the student's logits are all that is read of it, else `FEATURES`.
      source: paper.
      paper: its number.
      family: the file of `configs/` that runs it.
    """
    weights = (weight, label_weight)
    entry = {"reads": reads, "source": source, "paper": paper, "family": family}

    def decorate(kind: type[Baseline]) -> type[Baseline]:
        declared = [field for field in dataclasses.fields(kind) if is_setting(field)]
        settings = _settings_of(kind.__name__, declared, *weights)
        names = {field.name for field in declared}
        wanted = {field.name for field in dataclasses.fields(kind)} - names

        def make(values: Any, context: dict[str, Any]) -> Baseline:
            fields = {field: getattr(values, field) for field in names}
            return kind(**fields, **{key: context[key] for key in context if key in wanted})

        build = _builder(make, kind.constants)
        build.__qualname__ = kind.__qualname__
        register(name, settings=settings, **entry)(build)
        BASELINES[name] = kind
        return kind

    return decorate


def register_teacher_loss(
    name: str,
    loss: Callable[..., jax.Array],
    *,
    settings: type,
    weight: float,
    label_weight: float = 1.0,
    across_devices: bool = False,
    **entry: Any,
) -> None:
    """Registers a method that is one loss between a student's and a teacher's outputs.

    Args:
      name: `config.method`.
      loss: `(student, teacher, labels, settings, axis_name) -> [B]`, of two `Outputs`.
      settings: a frozen dataclass of fields made by `kdjax.settings.setting`.
      weight: of the loss, by default.
      label_weight: of the cross entropy, by default.
      across_devices: whether the loss compares images of all devices; otherwise its `axis_name` is
        None.
      **entry: `reads`, `source`, `paper` and `family` of `register_baseline`.
    """

    def compare(
        self: Any, student: Outputs, teacher: Outputs, batch: Batch, key: jax.Array
    ) -> Terms:
        del key
        values = settings(**{f.name: getattr(self, f.name) for f in dataclasses.fields(settings)})
        axis_name = self.axis_name if across_devices else None
        return Terms(loss(student, teacher, batch["label"], values, axis_name))

    fields = dataclasses.fields(settings)
    body = {"__annotations__": {field.name: field.type for field in fields}, "__call__": compare}
    body |= {field.name: _copy(field) for field in fields}
    body |= {"__doc__": settings.__doc__, "__module__": settings.__module__}
    kind = type(settings.__name__, (Baseline,), body, kw_only=True)
    register_baseline(name, weight=weight, label_weight=label_weight, **entry)(kind)


def _settings_of(
    name: str, declared: list[dataclasses.Field[Any]], weight: float, label_weight: float
) -> type:
    """The dataclass of a baseline's settings: the weights of `distill`, then its own."""
    fields = [
        ("weight", float, setting(weight, "of the method's own loss", at_least=0)),
        ("label_weight", float, setting(label_weight, "of the cross entropy", at_least=0)),
        ("teacher_weight", float, setting(0.0, "of KD in addition", at_least=0)),
        ("teacher_temperature", float, setting(4.0, "T of that KD", above=0)),
    ]
    types = _types(declared)
    fields += [(field.name, types[field.name], _copy(field)) for field in declared]
    return dataclasses.make_dataclass(f"{name}Settings", fields, frozen=True)


def _copy(field: dataclasses.Field[Any]) -> Any:
    """A field with the default and the rule of another."""
    return dataclasses.field(default=field.default, metadata=field.metadata)


def _types(fields: list[dataclasses.Field[Any]]) -> dict[str, Any]:
    """The types of fields by their names; they may be written as strings."""
    annotations = {field.name: field.type for field in fields}
    return typing.get_type_hints(type("Annotated", (), {"__annotations__": annotations}))


def _builder(
    make: Callable[[Any, dict[str, Any]], Baseline],
    constants: Callable[[np.ndarray | None], dict[str, Any]],
) -> Callable[..., base.Method]:
    """`(cohort, settings, **context) -> Method` of a baseline."""

    def build(
        cohort: Cohort,
        settings: Any,
        *,
        teacher: Callable[..., Any],
        axis_name: str | None = None,
        clock: Clock | None = None,
        train_labels: np.ndarray | None = None,
        learning_rate: float = 0.1,
    ) -> base.Method:
        norm_axis_name = cohort.networks[0].axis_name
        context = {
            "axis_name": axis_name,
            "norm_axis_name": norm_axis_name,
            "learning_rate": learning_rate,
        }
        trained = teacher()
        return distill(
            cohort,
            trained.network,
            trained.variables,
            make(settings, context),
            weight=settings.weight,
            label_weight=settings.label_weight,
            teacher_weight=settings.teacher_weight,
            temperature=settings.teacher_temperature,
            steps_per_epoch=None if clock is None else clock.steps_per_epoch,
            constants=constants(train_labels),
            renormalize=trained.renormalize,
        )

    return build
