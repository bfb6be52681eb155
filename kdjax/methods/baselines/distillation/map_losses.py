"""Baselines that compare feature maps: FitNet, AT, SP, VID, NST and KDSVD."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from kdjax import losses
from kdjax.methods.baselines.distillation.adapters import PointwisePredictor, regressed_maps
from kdjax.methods.baselines.distillation.comparison import (
    Baseline,
    Batch,
    Terms,
    layers_of,
    layers_setting,
    maps_of,
)
from kdjax.methods.baselines.distillation.registration import (
    register_baseline,
    register_teacher_loss,
)
from kdjax.models import Outputs
from kdjax.settings import setting


def _maps(
    student: Outputs, teacher: Outputs, settings: Any
) -> tuple[list[jax.Array], list[jax.Array]]:
    return maps_of(layers_of(student, teacher, settings.layers))


@dataclasses.dataclass(frozen=True)
class AT:
    """`losses.attention_transfer`."""

    layers: tuple[str, ...] = layers_setting("stages")
    power: int = setting(2, "p of the maps' mean |activation|^p", at_least=1)


register_teacher_loss(
    "at",
    lambda student, teacher, labels, settings, axis_name: losses.attention_transfer(
        *_maps(student, teacher, settings), p=settings.power
    ),
    settings=AT,
    weight=1000.0,
    source="Zagoruyko and Komodakis, ICLR 2017, arXiv 1612.03928",
    paper="74.08, 70.55, 73.44",
)


@dataclasses.dataclass(frozen=True)
class SP:
    """`losses.similarity_preserving`, between the images of all devices."""

    layers: tuple[str, ...] = layers_setting("last")


register_teacher_loss(
    "sp",
    lambda student, teacher, labels, settings, axis_name: losses.similarity_preserving(
        *_maps(student, teacher, settings), axis_name=axis_name
    ),
    settings=SP,
    weight=3000.0,
    across_devices=True,
    source="Tung and Mori, ICCV 2019, arXiv 1907.09682",
    paper="73.83, 69.67, 72.94",
)


@dataclasses.dataclass(frozen=True)
class NST:
    """`losses.nst`."""

    layers: tuple[str, ...] = layers_setting("stages")


register_teacher_loss(
    "nst",
    lambda student, teacher, labels, settings, axis_name: losses.nst(
        *_maps(student, teacher, settings)
    ),
    settings=NST,
    weight=50.0,
    source="Huang and Wang, 2017, arXiv 1707.01219",
    paper="73.68, 69.60, 73.30",
)


@dataclasses.dataclass(frozen=True)
class KDSVD:
    """`losses.kdsvd`; the student must be as wide as the teacher."""

    layers: tuple[str, ...] = layers_setting("stages")
    vectors: int = setting(1, "singular vectors compared", at_least=1)


register_teacher_loss(
    "kdsvd",
    lambda student, teacher, labels, settings, axis_name: losses.kdsvd(
        *_maps(student, teacher, settings), k=settings.vectors
    ),
    settings=KDSVD,
    weight=1.0,
    source="Lee et al., ECCV 2018",
)


@register_baseline(
    "fitnet",
    weight=100.0,
    source="Romero et al., ICLR 2015, arXiv 1412.6550",
    paper="73.58, 69.21, 73.50",
)
class FitNet(Baseline, kw_only=True):
    """`losses.hint` of regressed maps."""

    layers: tuple[str, ...] = layers_setting("stage2")

    @nn.compact
    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, key: jax.Array) -> Terms:
        del batch, key
        compared = layers_of(student, teacher, self.layers)
        maps = regressed_maps(compared, relu=True, axis_name=self.norm_axis_name)
        return Terms(losses.hint(*maps))


@register_baseline(
    "vid",
    weight=1.0,
    source="Ahn et al., CVPR 2019, arXiv 1904.05835",
    paper="74.11, 70.38, 73.09",
)
class VID(Baseline, kw_only=True):
    """`losses.vid` of predicted maps."""

    layers: tuple[str, ...] = layers_setting("stages")
    variance: float = setting(5.0, "of the prediction, at the beginning", above=0)

    @nn.compact
    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, key: jax.Array) -> Terms:
        del batch, key
        means, targets, scales = [], [], []
        start = nn.initializers.constant(losses.vid_log_scale(variance=self.variance))
        for layer in layers_of(student, teacher, self.layers):
            x, target = losses.match_resolution(layer.student, layer.teacher)
            width = target.shape[-1]
            means.append(PointwisePredictor(width, name=layer.name)(x))
            targets.append(target)
            scales.append(self.param(f"{layer.name}_log_scale", start, (width,)))
        return Terms(losses.vid(means, targets, scales))
