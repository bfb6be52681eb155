"""Baselines that compare feature maps: FitNet, AT, SP, VID, NST, KDSVD, FSP, AB and FT."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax

from kdjax import losses
from kdjax.methods.distill.adapters import Decoder, Encoder, PointwisePredictor, Regressor
from kdjax.methods.distill.baseline import (
    Baseline,
    Batch,
    Layer,
    Terms,
    TwoPhases,
    is_feature,
    layers_of,
    maps_of,
)
from kdjax.models import Outputs


class FitNet(Baseline, kw_only=True):
    """`losses.hint` of regressed maps."""

    layers: Sequence[str]

    @nn.compact
    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, key: jax.Array) -> Terms:
        del batch, key
        compared = layers_of(student, teacher, self.layers)
        maps = _regressed(compared, relu=True, axis_name=self.norm_axis_name)
        return Terms(losses.hint(*maps))


class AT(Baseline, kw_only=True):
    """`losses.attention_transfer`."""

    layers: Sequence[str]
    power: int

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, key: jax.Array) -> Terms:
        del batch, key
        maps = maps_of(layers_of(student, teacher, self.layers))
        return Terms(losses.attention_transfer(*maps, p=self.power))


class SP(Baseline, kw_only=True):
    """`losses.similarity_preserving`, between the images of all devices."""

    layers: Sequence[str]

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, key: jax.Array) -> Terms:
        del batch, key
        maps = maps_of(layers_of(student, teacher, self.layers))
        return Terms(losses.similarity_preserving(*maps, axis_name=self.axis_name))


class NST(Baseline, kw_only=True):
    """`losses.nst`."""

    layers: Sequence[str]

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, key: jax.Array) -> Terms:
        del batch, key
        return Terms(losses.nst(*maps_of(layers_of(student, teacher, self.layers))))


class KDSVD(Baseline, kw_only=True):
    """`losses.kdsvd`; the student must be as wide as the teacher."""

    layers: Sequence[str]
    vectors: int

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, key: jax.Array) -> Terms:
        del batch, key
        maps = maps_of(layers_of(student, teacher, self.layers))
        return Terms(losses.kdsvd(*maps, k=self.vectors))


class VID(Baseline, kw_only=True):
    """`losses.vid` of predicted maps.

    Attributes:
      variance: of the prediction, at the beginning.
    """

    layers: Sequence[str]
    variance: float

    @nn.compact
    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, key: jax.Array) -> Terms:
        del batch, key
        means, targets, scales = [], [], []
        start = nn.initializers.constant(losses.vid_log_scale(variance=self.variance))
        for each in layers_of(student, teacher, self.layers):
            x, target = losses.match_resolution(each.student, each.teacher)
            width = target.shape[-1]
            means.append(PointwisePredictor(width, name=each.name)(x))
            targets.append(target)
            scales.append(self.param(f"{each.name}_log_scale", start, (width,)))
        return Terms(losses.vid(means, targets, scales))


class AB(TwoPhases, kw_only=True):
    """`losses.activation_boundary` of connected maps, in a first phase that trains the features.

    The official code takes maps before activation, and connects maps of equal shape by nothing.
    Here they are a network's features, which mostly lie behind a ReLU, so that every layer has a
    connector: what comes out of it can be negative. (Behind a ReLU, a teacher's neuron is positive
    where it is before it; WRN's features are sums of residual blocks, which the official code
    passes through the next BatchNorm first.)
    """

    layers: Sequence[str]
    margin: float

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


class FSP(TwoPhases, kw_only=True):
    """`losses.fsp` in a first phase that trains the features; equal widths are needed."""

    layers: Sequence[str]

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, key: jax.Array) -> Terms:
        del batch, key
        values = losses.fsp(*maps_of(layers_of(student, teacher, self.layers)))
        return Terms(values, first=values)

    @nn.nowrap
    def rates(self, path: tuple[str, ...]) -> tuple[float, float]:
        return float(is_feature(path)), 1.0


class FT(TwoPhases, kw_only=True):
    """`losses.factor_transfer`, after a first phase that trains the teacher's paraphraser alone.

    Attributes:
      layers: one.
      factor: channels of the factor over those of the teacher's map.
      init_rate: learning rate of the first phase, as a factor of the optimizer's.
    """

    layers: Sequence[str]
    factor: float
    init_rate: float

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
        return (self.init_rate, 0.0) if teachers else (0.0, 1.0)


def _regressed(
    compared: Sequence[Layer], *, relu: bool, axis_name: str | None
) -> tuple[list[jax.Array], list[jax.Array]]:
    """The student's maps in the shapes of the teacher's, and those."""
    regressed = [
        Regressor(each.teacher.shape[1:], relu, axis_name, name=each.name)(each.student)
        for each in compared
    ]
    return regressed, [each.teacher for each in compared]
