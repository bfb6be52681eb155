"""Adapters between the feature maps of a student and its teacher."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax

from kdjax.errors import UserError
from kdjax.methods.baselines.distillation.comparison import Layer
from kdjax.models import layers
from kdjax.models.linear import Conv

_leaky_relu = functools.partial(nn.leaky_relu, negative_slope=0.1)


class Regressor(nn.Module):
    """Maps a student's map to the shape of the teacher's: convolution, BatchNorm, optional ReLU.

    `[B, H_s, W_s, C_s] -> [B, H_t, W_t, C_t]`. At equal resolution the convolution is 1x1; to half
    of it 3x3 at stride 2; to twice of it a transposed one, 4x4; to any other smaller one as large
    as the difference asks for, without padding. The bias that the official code has before
    BatchNorm would change nothing.

    Source: `ConvReg` in RepDistiller models/util.py.

    Attributes:
      shape: `(H_t, W_t, C_t)`.
      relu: whether a ReLU ends it (FitNet; not AB).
      axis_name: mapped axis over which BatchNorm statistics are shared, or None.
    """

    shape: tuple[int, ...]
    relu: bool
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self._convolution(x.shape[1:3], x.dtype)(x)
        x = layers.BatchNorm(dtype=x.dtype, axis_name=self.axis_name, name="bn")(x, True)
        return nn.relu(x) if self.relu else x

    @nn.nowrap
    def _convolution(self, old: tuple[int, ...], dtype: Any) -> nn.Module:
        *new, channels = self.shape
        fields: dict[str, Any] = {"kernel_init": layers.UNIFORM_INIT, "use_bias": False}
        fields |= {"dtype": dtype, "features": channels, "name": "conv"}
        ratios = {(a / b) for a, b in zip(old, new, strict=True)}
        if ratios == {2.0}:
            return nn.Conv(kernel_size=(3, 3), strides=(2, 2), padding=1, **fields)
        if ratios == {0.5}:
            return nn.ConvTranspose(
                kernel_size=(4, 4), strides=(2, 2), padding=((2, 2), (2, 2)), **fields
            )
        if min(ratios) < 1:
            raise UserError(
                f"the student's map of {old[0]}x{old[1]} cannot be brought to the teacher's "
                f"{new[0]}x{new[1]}; name other layers"
            )
        size = tuple(1 + a - b for a, b in zip(old, new, strict=True))
        return nn.Conv(kernel_size=size, padding="VALID", **fields)


def regressed_maps(
    compared: Sequence[Layer], *, relu: bool, axis_name: str | None
) -> tuple[list[jax.Array], list[jax.Array]]:
    """The student's maps regressed to the shapes of the teacher's, and the teacher's maps."""
    regressed = [
        Regressor(layer.teacher.shape[1:], relu, axis_name, name=layer.name)(layer.student)
        for layer in compared
    ]
    return regressed, [layer.teacher for layer in compared]


class PointwisePredictor(nn.Module):
    """Three 1x1 convolutions, a ReLU between them: `[B, H, W, C] -> [B, H, W, features]`.

    Source: `VIDLoss` in RepDistiller distiller_zoo/VID.py.

    Attributes:
      features: channels of all three.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        fields: dict[str, Any] = {"kernel_init": layers.UNIFORM_INIT, "dtype": x.dtype}
        x = nn.relu(layers.conv(self.features, 1, name="conv1", **fields)(x))
        x = nn.relu(layers.conv(self.features, 1, name="conv2", **fields)(x))
        return layers.conv(self.features, 1, name="conv3", **fields)(x)


class Encoder(nn.Module):
    """Three 3x3 convolutions with leaky ReLUs: `[B, H, W, C] -> [B, H, W, features]`, a factor.

    Source: `Translator` (with BatchNorm) and the first half of `Paraphraser` (without) in
    RepDistiller models/util.py.

    Attributes:
      features: channels of the factor.
      normalize: whether BatchNorm follows each convolution.
      axis_name: mapped axis over which BatchNorm statistics are shared, or None.
    """

    features: int
    normalize: bool
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        widths = (x.shape[-1], self.features, self.features)
        for index, width in enumerate(widths, 1):
            x = _conv(width, x.dtype, f"conv{index}", use_bias=not self.normalize)(x)
            if self.normalize:
                norm = layers.BatchNorm(dtype=x.dtype, axis_name=self.axis_name, name=f"bn{index}")
                x = norm(x, True)
            x = _leaky_relu(x)
        return x


class Decoder(nn.Module):
    """Reconstructs a map from its factor: `[B, H, W, features] -> [B, H, W, C]`.

    Three 3x3 convolutions with leaky ReLUs. (The official code's transposed convolutions at stride
    1 are convolutions with the kernel turned around.) Source: the second half of `Paraphraser` in
    RepDistiller models/util.py.

    Attributes:
      channels: C.
    """

    channels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for index, width in enumerate((x.shape[-1], self.channels, self.channels), 1):
            x = _leaky_relu(_conv(width, x.dtype, f"conv{index}", use_bias=True)(x))
        return x


def _conv(features: int, dtype: Any, name: str, *, use_bias: bool) -> Conv:
    return layers.conv(
        features, use_bias=use_bias, kernel_init=layers.UNIFORM_INIT, dtype=dtype, name=name
    )
