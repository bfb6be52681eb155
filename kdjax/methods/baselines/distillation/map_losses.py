"""Baselines that compare feature maps: FitNet, AT, SP, VID, NST, KDSVD, FSP, AB and FT."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax

from kdjax import losses
from kdjax.methods.baselines.distillation.adapters import (
    Decoder,
    Encoder,
    PointwisePredictor,
    Regressor,
)
from kdjax.methods.baselines.distillation.comparison import (
    Baseline,
    Batch,
    Layer,
    Terms,
    TwoPhases,
    is_feature,
    layers_of,
    maps_of,
)
from kdjax.methods.baselines.distillation.registration import (
    register_baseline,
    register_teacher_loss,
)
from kdjax.models import Outputs
from kdjax.settings import setting


def _layers(*names: str):
    """The setting `layers`: 'stem', 'stage1', ..., 'last' (stage), 'stages' (all of them)."""
    return setting(names, "layers compared: stem, stage1, ..., last, stages")


def _maps(student: Outputs, teacher: Outputs, settings) -> tuple[list[jax.Array], list[jax.Array]]:
    return maps_of(layers_of(student, teacher, settings.layers))


@dataclasses.dataclass(frozen=True)
class AT:
    """`losses.attention_transfer`."""

    layers: tuple[str, ...] = _layers("stages")
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

    layers: tuple[str, ...] = _layers("last")


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

    layers: tuple[str, ...] = _layers("stages")


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

    layers: tuple[str, ...] = _layers("stages")
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

    layers: tuple[str, ...] = _layers("stage2")

    @nn.compact
    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, key: jax.Array) -> Terms:
        del batch, key
        compared = layers_of(student, teacher, self.layers)
        maps = _regressed(compared, relu=True, axis_name=self.norm_axis_name)
        return Terms(losses.hint(*maps))


@register_baseline(
    "vid",
    weight=1.0,
    source="Ahn et al., CVPR 2019, arXiv 1904.05835",
    paper="74.11, 70.38, 73.09",
)
class VID(Baseline, kw_only=True):
    """`losses.vid` of predicted maps."""

    layers: tuple[str, ...] = _layers("stages")
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


@register_baseline(
    "ab",
    weight=0.0,
    source="Heo et al., AAAI 2019, arXiv 1811.03233",
    paper="72.50, 69.47, 73.17",
)
class AB(TwoPhases, kw_only=True):
    """`losses.activation_boundary` of connected maps, in a first phase that trains the features.

    The official code takes maps before activation, and connects maps of equal shape by nothing.
    Here they are a network's features, which mostly lie behind a ReLU, so that every layer has a
    connector: what comes out of it can be negative. (Behind a ReLU, a teacher's neuron is positive
    where it is before it; WRN's features are sums of residual blocks, which the official code
    passes through the next BatchNorm first.)
    """

    layers: tuple[str, ...] = _layers("stages")
    margin: float = setting(1.0, "by which activations are to be beyond zero", at_least=0)

    @nn.compact
    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, key: jax.Array) -> Terms:
        del batch, key
        compared = layers_of(student, teacher, self.layers)
        maps = _regressed(compared, relu=False, axis_name=self.norm_axis_name)
        values = losses.activation_boundary(*maps, margin=self.margin)
        return Terms(values, first=values)

    @nn.nowrap
    def rates(self, path: tuple[str, ...]) -> tuple[float, float]:
        if path[0] == "adapters":
            return 1.0, 0.0
        return float(is_feature(path)), 1.0


@register_baseline("fsp", weight=0.0, source="Yim et al., CVPR 2017", paper="72.91, 69.95, 72.62")
class FSP(TwoPhases, kw_only=True):
    """`losses.fsp` in a first phase that trains the features; equal widths are needed."""

    layers: tuple[str, ...] = _layers("stem", "stages")

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, key: jax.Array) -> Terms:
        del batch, key
        values = losses.fsp(*maps_of(layers_of(student, teacher, self.layers)))
        return Terms(values, first=values)

    @nn.nowrap
    def rates(self, path: tuple[str, ...]) -> tuple[float, float]:
        return float(is_feature(path)), 1.0


@register_baseline(
    "ft",
    weight=200.0,
    source="Kim et al., NeurIPS 2018, arXiv 1802.04977",
    paper="73.25, 69.84, 72.86",
)
class FT(TwoPhases, kw_only=True):
    """`losses.factor_transfer`, after a first phase that trains the teacher's paraphraser alone.

    It compares one layer.
    """

    layers: tuple[str, ...] = _layers("last")
    factor: float = setting(0.5, "channels of the factor over those of the teacher's map", above=0)
    init_learning_rate: float = setting(0.01, "of the first phase", above=0)
    learning_rate: float = 0.1  # config.optimizer.learning_rate

    @nn.compact
    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, key: jax.Array) -> Terms:
        del batch, key
        compared = layers_of(student, teacher, self.layers)
        if len(compared) > 1:
            raise ValueError(f"factors are those of one layer, not of layers={tuple(self.layers)}")
        _, ours, theirs = compared[0]
        channels = int(self.factor * theirs.shape[-1])
        paraphrased = Encoder(channels, normalize=False, name="paraphraser")(theirs)
        restored = Decoder(theirs.shape[-1], name="restorer")(paraphrased)
        translated = Encoder(channels, True, self.norm_axis_name, name="translator")(ours)
        return Terms(
            losses.factor_transfer(translated, paraphrased), first=losses.hint(restored, theirs)
        )

    @property
    def student_waits(self) -> bool:
        return True

    @nn.nowrap
    def rates(self, path: tuple[str, ...]) -> tuple[float, float]:
        teachers = path[0] == "adapters" and path[1] in ("paraphraser", "restorer")
        first = self.init_learning_rate / self.learning_rate
        return (first, 0.0) if teachers else (0.0, 1.0)


def _regressed(
    compared: Sequence[Layer], *, relu: bool, axis_name: str | None
) -> tuple[list[jax.Array], list[jax.Array]]:
    """The student's maps regressed to the shapes of the teacher's, and the teacher's maps."""
    regressed = [
        Regressor(each.teacher.shape[1:], relu, axis_name, name=each.name)(each.student)
        for each in compared
    ]
    return regressed, [each.teacher for each in compared]
