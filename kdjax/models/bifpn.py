"""A feature pyramid over a network, FRSKD's self-teacher.

Source: Ji et al. 2021 (FRSKD), section 3, after the BiFPN of Tan et al. 2020. Checked against
Self-KD-Lib models/bifpnc.py.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.errors import UserError
from kdjax.models import layers
from kdjax.models.outputs import Outputs
from kdjax.models.parts import Parts, parts_below
from kdjax.models.staged import StagedNetwork
from kdjax.numerics import accumulation_dtype

_EPSILON = 1e-6


class Pointwise(nn.Module):
    """1x1 convolution, BatchNorm, ReLU, `[B, H, W, C] -> [B, H, W, features]`."""

    features: int
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = layers.conv(self.features, 1, dtype=self.dtype, name="conv")(x)
        norm = layers.BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name="bn")
        return nn.relu(norm(x, train))


class Separable(nn.Module):
    """`depth` times: 3x3 per channel, 1x1, BatchNorm, with ReLU between. Shapes are kept.

    The result is a BatchNorm's: not activated.
    """

    depth: int = 1
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        channels = x.shape[-1]
        for index in range(self.depth):
            x = nn.relu(x) if index else x
            x = layers.conv(
                channels, 3, groups=channels, dtype=self.dtype, name=f"depthwise{index}"
            )(x)
            x = layers.conv(channels, 1, dtype=self.dtype, name=f"pointwise{index}")(x)
            x = layers.BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name=f"bn{index}")(
                x, train
            )
        return x


class BiFPN(nn.Module):
    """Maps feature maps of all stages to fused maps of the same resolutions, and logits.

    First from the last stage to the first (top-down), then back (bottom-up); where maps meet, they
    are summed with learned weights, and `Separable` layers follow.

    Attributes:
      num_classes: number of classes.
      width: channels of the pyramid per channel of the network, in every stage.
      depth: layers that follow each sum.
      dtype: compute dtype; logits are float32 at least.
      axis_name: mapped axis over which BatchNorm statistics are shared, or None.
    """

    num_classes: int
    width: int = 1
    depth: int = 1
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, features: dict[str, jax.Array], train: bool = False
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        """Runs the pyramid.

        Args:
          features: `{'stage1': [B, H, W, C], ...}`, each stage at half the resolution of the one
            before.
          train: whether BatchNorm uses the batch's statistics.

        Returns:
          The pyramid's maps by the same names, `[B, H, W, width * C]`, before their ReLU; and
          logits `[B, num_classes]` from the last one.

        Raises:
          UserError: a map is not twice as high and wide as the next.
        """
        maps = [nn.relu(x.astype(self.dtype)) for x in features.values()]
        _check(maps)
        top_down = self._top_down(maps, train)
        pyramid = self._bottom_up(maps, top_down, train)
        x = layers.global_average_pool(nn.relu(pyramid[-1]))
        dtype = accumulation_dtype(self.dtype)
        classifier = layers.dense(x.shape[-1], self.num_classes, dtype=dtype, name="classifier")
        return dict(zip(features, pyramid, strict=True)), classifier(x)

    @nn.nowrap
    def _top_down(self, maps: list[jax.Array], train: bool) -> list[jax.Array]:
        x = self._pointwise(maps[-1], maps[-1], f"lateral_top_down{len(maps)}", train)
        pyramid_maps = [x]
        for number in range(len(maps) - 1, 0, -1):
            stage_map = maps[number - 1]
            lateral = self._pointwise(stage_map, stage_map, f"lateral_top_down{number}", train)
            above = self._pointwise(_upsample(nn.relu(x)), stage_map, f"upsample{number}", train)
            x = self._fuse([lateral, above], f"top_down{number}", train)
            pyramid_maps.insert(0, x)
        return pyramid_maps

    @nn.nowrap
    def _bottom_up(
        self, maps: list[jax.Array], top_down: list[jax.Array], train: bool
    ) -> list[jax.Array]:
        pyramid_maps = [top_down[0]]
        for number in range(2, len(maps) + 1):
            stage_map = maps[number - 1]
            inputs = [self._pointwise(stage_map, stage_map, f"lateral_bottom_up{number}", train)]
            if number < len(maps):
                inputs.append(nn.relu(top_down[number - 1]))
            below = _downsample(nn.relu(pyramid_maps[-1]))
            inputs.append(self._pointwise(below, stage_map, f"downsample{number}", train))
            pyramid_maps.append(self._fuse(inputs, f"bottom_up{number}", train))
        return pyramid_maps

    @nn.nowrap
    def _pointwise(self, x: jax.Array, stage_map: jax.Array, name: str, train: bool) -> jax.Array:
        """Projects `x` to the pyramid's number of channels at the stage of `stage_map`."""
        features = self.width * stage_map.shape[-1]
        return Pointwise(features, dtype=self.dtype, axis_name=self.axis_name, name=name)(x, train)

    @nn.nowrap
    def _fuse(self, inputs: list[jax.Array], name: str, train: bool) -> jax.Array:
        """Sums the inputs with weights that are not negative and (nearly) sum to 1."""
        weights = self.param(f"{name}_weights", nn.initializers.ones_init(), (len(inputs),))
        weights = nn.relu(weights)
        weights = (weights / (weights.sum() + _EPSILON)).astype(self.dtype)
        x = sum(weight * x for weight, x in zip(weights, inputs, strict=True))
        return Separable(self.depth, dtype=self.dtype, axis_name=self.axis_name, name=name)(
            x, train
        )


def _check(maps: list[jax.Array]) -> None:
    for larger, smaller in itertools.pairwise(maps):
        if larger.shape[1:3] != (2 * smaller.shape[1], 2 * smaller.shape[2]):
            sizes = ", ".join(f"{x.shape[1]}x{x.shape[2]}" for x in maps)
            raise UserError(
                f"a feature pyramid needs maps that halve from stage to stage, not {sizes}; "
                "use images whose height and width are multiples of the network's stride"
            )


def _upsample(x: jax.Array) -> jax.Array:
    """Nearest-neighbor upsampling to twice the resolution."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


def _downsample(x: jax.Array) -> jax.Array:
    """The largest value of 3x3 windows at stride 2; one row and one column more at the end.

    The official code pads with zeros. No value of an activated map is below them, so they change
    nothing.
    """
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding="SAME")


class PyramidOutputs(NamedTuple):
    """The result of a `Pyramid`.

    Attributes:
      backbone: of the network itself.
      features: the pyramid's maps `{'stage1': [B, H, W, width * C], ...}`, before their ReLU.
      logits: the pyramid's, `[B, num_classes]`.
    """

    backbone: Outputs
    features: dict[str, jax.Array]
    logits: jax.Array


class Pyramid(nn.Module):
    """A network (`backbone`) and a feature pyramid on its maps (`bifpn`).

    Attributes:
      network: the network.
      width: as of `BiFPN`.
      depth: as of `BiFPN`.
    """

    network: StagedNetwork
    width: int = 1
    depth: int = 1

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> PyramidOutputs:
        """Images `[B, H, W, C]` to the outputs of the network and of the pyramid."""
        backbone = self.network.clone(parent=self, name="backbone")(images, train)
        bifpn = BiFPN(
            self.network.num_classes,
            width=self.width,
            depth=self.depth,
            dtype=self.network.dtype,
            axis_name=self.network.axis_name,
            name="bifpn",
        )
        return PyramidOutputs(backbone, *bifpn(backbone.features, train))

    @nn.nowrap
    def network_parts(self) -> Parts:
        """The network, without its pyramid."""
        return parts_below([("backbone", self.network)])
