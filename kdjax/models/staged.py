"""Base class of the networks, which run completely or from one stage to another."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.errors import UserError
from kdjax.models import layers
from kdjax.models.filters import Link, ResidualGroup
from kdjax.models.narrowing import Compaction, Narrow, narrow_layers
from kdjax.models.outputs import Outputs
from kdjax.numerics import accumulation_dtype

# What becomes of `(stage number, feature map)`; 0 is the stem.
Hidden = Callable[[int, jax.Array], jax.Array]


@functools.cache
def _traced_once(kind: type[nn.Module]) -> type[nn.Module]:
    return nn.jit(kind, static_argnums=(2,))


class StagedNetwork(nn.Module):
    """A stem, stages counted from 1, and a head: pooling and a linear classifier.

    A family gives `num_stages`, `stride`, `stem` and `stage`, and `embed` where more than average
    pooling stands between the last stage and the classifier. Only the part that is run creates
    variables, so a network that shares its early stages, or an auxiliary branch ("the remaining
    stages, once more"), is the same module run from `start` on.

    Attributes:
      num_classes: number of classes.
      dtype: compute dtype. Parameters are float32, logits float32 at least.
      axis_name: mapped axis over which BatchNorm statistics are shared, or None.
      extra_stages: how many more stages follow the last one, each with its width and at its
        resolution: what HSAKD's branch after the last stage consists of.
      compaction: which filters are left of a network that was made smaller
        (`kdjax.compaction.remove_filters`), or None: the layers' widths. Its feature maps have the
        channels that are left.
      remat: whether the activations within a stage are computed again for its gradients, by
        `jax.checkpoint`, in place of being kept.
      trace_once: whether equal blocks, also those of other networks, and equal networks of a cohort
        are traced and lowered as one, which takes half of the time. Functions that intercept the
        calls of modules (`flax.linen`'s `intercept_methods`) see only what is traced. The numbers
        are the same.
    """

    num_classes: int
    dtype: Any = jnp.float32
    axis_name: str | None = None
    extra_stages: int = 0
    compaction: Compaction | None = None
    remat: bool = False
    trace_once: bool = False

    @property
    def num_stages(self) -> int:
        """Number of stages, without the extra ones."""
        raise NotImplementedError

    @property
    def stride(self) -> int:
        """Pixels of the image per pixel of the last feature map, along one side."""
        raise NotImplementedError

    @property
    def image_size(self) -> int:
        """Side of the images that the network is designed for; the minimum is `stride`."""
        return 32

    @nn.nowrap
    def branch_fields(self, form: str, stage: int) -> dict[str, Any]:
        """Fields in which a branch after `stage` differs from the network in the official code.

        `form` is 'hsakd' or 'lmcl'. By default a branch is what its form says and no more.
        """
        del form, stage
        return {}

    @nn.nowrap
    def filter_links(self) -> tuple[Link, ...]:
        """The convolutions that may be pruned, one link each, with the consumers of their channels.

        None by default: a network without links cannot be made smaller. The layers that links name
        are those of `kdjax.models.layers`, which take their widths from `compaction`.
        """
        return ()

    @nn.nowrap
    def residual_groups(self) -> tuple[ResidualGroup, ...]:
        """The residual sums of several convolutions. By default there are none."""
        return ()

    @functools.cached_property
    def narrow_layers(self) -> Mapping[str, Narrow]:
        """The layers that `compaction` makes narrower, by path."""
        return narrow_layers(self)

    @nn.nowrap
    def stem(self, images: jax.Array, train: bool) -> jax.Array:
        """Images `[B, H, W, C]` to the input of stage 1."""
        raise NotImplementedError

    @nn.nowrap
    def stage(self, x: jax.Array, number: int, train: bool) -> jax.Array:
        """The end of stage `number - 1` (of the stem for 1) to the end of stage `number`.

        A number above `num_stages` is an extra stage: the last one again, at stride 1.
        """
        raise NotImplementedError

    @nn.nowrap
    def embed(self, x: jax.Array, train: bool) -> jax.Array:
        """The end of the last stage `[B, H, W, C]` to the embedding `[B, D]`."""
        del train
        return layers.global_average_pool(x)

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        train: bool = False,
        start: int = 0,
        stop: int | None = None,
        hidden: Hidden | None = None,
    ) -> Outputs:
        """Runs the network, or the part of it after stage `start` and up to stage `stop`.

        Args:
          x: images `[B, H, W, C]` if `start` is 0, else the feature map of stage `start`.
          train: whether BatchNorm uses the batch's statistics (`batch_stats` must be mutable).
          start: 0, or the stage whose feature map `x` is.
          stop: the last stage to run, or None to run to the logits.
          hidden: `(number, x) -> x`, what the end of the stem (0) and of every stage that is run
            goes through before anything else sees it: a place to mix images inside the network.

        Returns:
          `Outputs` with the features of the stages that were run; `logits` and `embedding` are None
          if `stop` is given.

        Raises:
          UserError: images smaller than the network's stride, or stages that do not exist.
        """
        self._check(x, start, stop)
        x = x.astype(self.dtype)
        if start == 0:
            x = self.stem(x, train)
            x = x if hidden is None else hidden(0, x)
            self.sow("intermediates", "stem", x)  # for those who ask for it
        features = {}
        last = self.num_stages + self.extra_stages
        for number in range(start + 1, (last if stop is None else stop) + 1):
            x = self._stage(x, number, train)
            x = x if hidden is None else hidden(number, x)
            features[f"stage{number}"] = x
        if stop is not None:
            return Outputs(None, features, None)
        embedding = self.embed(x, train)
        # Logits are made in float32: the losses take differences of them.
        logits = layers.dense(
            embedding.shape[-1],
            self.num_classes,
            dtype=accumulation_dtype(self.dtype),
            name="classifier",
        )(embedding)
        return Outputs(logits, features, embedding)

    @nn.nowrap
    def block_of(self, kind: type[nn.Module]) -> type[nn.Module]:
        """`kind`, a class of `(x, train) -> x`, as the network's stages are to use it."""
        # flax.linen draws other initial weights inside of its jit.
        plain = self.is_initializing() or self.compaction is not None
        if plain or not self.trace_once:
            return kind
        return _traced_once(cast(Hashable, kind))  # type checkers take the instances' hash for it

    @nn.nowrap
    def _stage(self, x: jax.Array, number: int, train: bool) -> jax.Array:
        if not (self.remat and train):
            return self.stage(x, number, train)
        return nn.remat(lambda network, x: network.stage(x, number, train))(self, x)

    @nn.nowrap
    def _check(self, x: jax.Array, start: int, stop: int | None) -> None:
        last = self.num_stages + self.extra_stages
        if not 0 <= start <= last or (stop is not None and not start < stop <= last):
            raise UserError(
                f"start={start}, stop={stop} is no part of a network of {last} stages; "
                f"use 0 <= start < stop <= {last}"
            )
        if x.ndim != 4:
            raise UserError(f"networks take images [B, H, W, C], not an array of shape {x.shape}")
        if start == 0 and min(x.shape[1:3]) < self.stride:
            raise UserError(
                f"images of {x.shape[1]}x{x.shape[2]} pixels are smaller than the network's stride "
                f"of {self.stride}; use larger images, or a network of a smaller stride"
            )
