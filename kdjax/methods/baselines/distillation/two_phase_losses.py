"""Baselines that compare feature maps in a phase before or after another one: AB, FSP and FT."""

from __future__ import annotations

import flax.linen as nn
import jax

from kdjax import losses
from kdjax.methods.baselines.distillation.adapters import Decoder, Encoder, regressed_maps
from kdjax.methods.baselines.distillation.comparison import (
    Batch,
    Terms,
    TwoPhases,
    is_feature,
    layers_of,
    layers_setting,
    maps_of,
)
from kdjax.methods.baselines.distillation.registration import register_baseline
from kdjax.models import Outputs
from kdjax.settings import setting


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

    layers: tuple[str, ...] = layers_setting("stages")
    margin: float = setting(1.0, "by which activations are to be beyond zero", at_least=0)

    @nn.compact
    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, key: jax.Array) -> Terms:
        del batch, key
        compared = layers_of(student, teacher, self.layers)
        maps = regressed_maps(compared, relu=False, axis_name=self.norm_axis_name)
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

    layers: tuple[str, ...] = layers_setting("stem", "stages")

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

    layers: tuple[str, ...] = layers_setting("last")
    factor: float = setting(0.5, "channels of the factor over those of the teacher's map", above=0)
    init_learning_rate: float = setting(0.01, "of the first phase", above=0)
    learning_rate: float = 0.1  # config.optimizer.learning_rate

    @nn.compact
    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch, key: jax.Array) -> Terms:
        del batch, key
        compared = layers_of(student, teacher, self.layers)
        if len(compared) > 1:
            raise ValueError(f"factors are those of one layer, not of layers={tuple(self.layers)}")
        _, student_map, teacher_map = compared[0]
        channels = int(self.factor * teacher_map.shape[-1])
        paraphrased = Encoder(channels, normalize=False, name="paraphraser")(teacher_map)
        restored = Decoder(teacher_map.shape[-1], name="restorer")(paraphrased)
        translated = Encoder(channels, True, self.norm_axis_name, name="translator")(student_map)
        return Terms(
            losses.factor_transfer(translated, paraphrased),
            first=losses.hint(restored, teacher_map),
        )

    @property
    def student_waits(self) -> bool:
        return True

    @nn.nowrap
    def rates(self, path: tuple[str, ...]) -> tuple[float, float]:
        teachers = path[0] == "adapters" and path[1] in ("paraphraser", "restorer")
        first = self.init_learning_rate / self.learning_rate
        return (first, 0.0) if teachers else (0.0, 1.0)
