"""Methods that consist of one loss of a network's outputs and the labels.

A row is a call of `register_loss`. Networks of the cohort learn each for itself, with the sum of
their losses. All report 'cross_entropy' of the labels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from kdjax import losses, numerics
from kdjax.methods import base
from kdjax.methods.baselines.self_distillation.form import form
from kdjax.methods.registry import FEATURES, LOGITS, register
from kdjax.models import Cohort, Outputs
from kdjax.settings import setting

# (a network's outputs, labels [B], settings) -> [B]
Loss = Callable[[Outputs, jax.Array, Any], jax.Array]


def register_loss(
    name: str,
    loss: Loss,
    *,
    settings: type,
    metric: str = "",
    weight: Callable[[Any], float] = lambda settings: settings.weight,
    label_weight: Callable[[Any], float] = lambda settings: 1.0,
    family: str = "self_distill",
    **fields: Any,
) -> Callable[..., base.Method]:
    """Registers a method of one loss of a network's outputs, and returns it.

    The method's loss is `loss` alone or, with a `metric`, `label_weight * cross entropy + weight *
    loss`.

    Args:
      name: `config.method`, and the section of its settings.
      loss: `(outputs, labels [B], settings) -> [B]`.
      settings: a frozen dataclass of fields made by `kdjax.settings.setting`.
      metric: the name under which the loss is reported beside the cross entropy; '' for a loss that
        replaces it.
      weight: of the loss, from the settings.
      label_weight: of the cross entropy, from the settings.
      family: the file of `configs/` that runs it.
      **fields: of `kdjax.methods.registry.MethodEntry`, such as `reads` and `source`.
    """

    def build(cohort: Cohort, settings: Any) -> base.Method:
        def total_loss(
            params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
        ) -> base.LossResult:
            del key
            labels = batch["label"]
            outputs, model_state = base.train_outputs(cohort, params, model_state, batch["image"])
            cross_entropy, metrics = base.classification(outputs, labels)
            value = numerics.total(jnp.mean(loss(output, labels, settings)) for output in outputs)
            if not metric:
                return value, (model_state, metrics)
            total = label_weight(settings) * cross_entropy + weight(settings) * value
            return total, (model_state, metrics | {metric: value})

        return base.cohort_method(cohort, total_loss)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"""The method {name!r}: `(cohort, **settings) -> Method`."""
    return register(name, settings=settings, family=family, **fields)(build)


@dataclasses.dataclass(frozen=True)
class LabelSmoothing:
    """`config.label_smoothing`."""

    smoothing: float = setting(0.1, "what the labels give away", at_least=0, below=1)
    form: str = form()


label_smoothing = register_loss(
    "label_smoothing",
    lambda outputs, labels, settings: losses.label_smoothing(
        outputs.logits, labels, smoothing=settings.smoothing, form=settings.form
    ),
    settings=LabelSmoothing,
    reads=LOGITS,
    source="Szegedy et al., CVPR 2016, arXiv 1512.00567",
    paper="ResNet-18 78.72 (Self-KD-Lib)",
)


@dataclasses.dataclass(frozen=True)
class Focal:
    """`config.focal`."""

    gamma: float = setting(2.0, "focusing parameter", at_least=0)


focal = register_loss(
    "focal",
    lambda outputs, labels, settings: losses.focal(outputs.logits, labels, gamma=settings.gamma),
    settings=Focal,
    reads=LOGITS,
    source="Lin et al., ICCV 2017, arXiv 1708.02002",
    paper="ResNet-18 76.19 (Self-KD-Lib)",
)


@dataclasses.dataclass(frozen=True)
class MaxEntropy:
    """`config.max_entropy`."""

    weight: float = setting(0.5, "of the negative entropy", at_least=0)
    form: str = form()


max_entropy = register_loss(
    "max_entropy",
    lambda outputs, labels, settings: losses.confidence_penalty(outputs.logits, form=settings.form),
    settings=MaxEntropy,
    metric="confidence_penalty",
    reads=LOGITS,
    source="Pereyra et al., 2017, arXiv 1701.06548",
    paper="ResNet-18 76.50 (Self-KD-Lib)",
)


@dataclasses.dataclass(frozen=True)
class TfKd:
    """`config.tf_kd`.

    In the paper's form the loss is `(1 - weight) CE + weight L`, in the library's `CE + weight L`,
    where Self-KD-Lib has a weight of 1.
    """

    weight: float = setting(0.1, "alpha of the paper, on ImageNet", at_least=0)
    smoothing: float = setting(
        0.1, "what the designed teacher gives to the wrong classes", at_least=0, below=1
    )
    temperature: float = setting(20.0, "T", above=0)
    form: str = form()

    def __post_init__(self) -> None:
        if self.form == "paper" and self.weight >= 1:
            raise ValueError(f"weight={self.weight} must be less than 1 in the paper's form")

    @property
    def label_weight(self) -> float:
        """Weight of the cross entropy."""
        return 1.0 - self.weight if self.form == "paper" else 1.0


tf_kd = register_loss(
    "tf_kd",
    lambda outputs, labels, settings: losses.tf_kd(
        outputs.logits,
        labels,
        smoothing=settings.smoothing,
        temperature=settings.temperature,
        form=settings.form,
    ),
    settings=TfKd,
    metric="distillation",
    label_weight=lambda settings: settings.label_weight,
    reads=LOGITS,
    source="Yuan et al., CVPR 2020, arXiv 1909.11723",
    paper="ResNet-18 76.61 (Self-KD-Lib)",
)


@dataclasses.dataclass(frozen=True)
class Sad:
    """`config.sad`."""

    weight: float = setting(1000.0, "of the distances between attention maps", at_least=0)


sad = register_loss(
    "sad",
    lambda outputs, labels, settings: losses.sad(list(outputs.features.values())),
    settings=Sad,
    metric="attention",
    reads=FEATURES,
    source="Hou et al., ICCV 2019, arXiv 1908.00821",
    paper="ResNet-18 76.40 (Self-KD-Lib)",
)
