"""Modules over all stages of a network: MixSKD's self-teacher, L-MCL's logit aggregator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.models import layers
from kdjax.models.branched import Branched, stage_branches
from kdjax.models.outputs import Outputs
from kdjax.models.registry import register_form
from kdjax.models.staged import StagedNetwork
from kdjax.numerics import accumulation_dtype


class SelfTeacher(nn.Module):
    """Maps the last feature maps `[B, H, W, C]` of a network and its branches to `[B, classes]`.

    Concatenation along the channels, a 1x1 convolution without bias to C channels, average pooling,
    a linear classifier. All of it is linear, so the logits of interpolated maps,
    `lam * maps + (1 - lam) * maps[order]`, are the interpolated logits: MixSKD's ensemble logits of
    a mixed pair of images need no second forward pass.

    Source: Yang et al. 2022 (MixSKD), section 3; `ResNet_Final_Auxiliary_Classifer` in Self-KD-Lib
    models/resnet_mixskd.py and models/resnet_imagenet_mixskd.py.

    Attributes:
      num_classes: number of classes.
      dtype: compute dtype; logits are float32 at least.
    """

    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array]) -> jax.Array:
        channels = maps[-1].shape[-1]
        x = jnp.concatenate(maps, axis=-1)
        x = layers.conv(channels, 1, dtype=self.dtype, name="conv")(x)
        x = layers.global_average_pool(x)
        dtype = accumulation_dtype(self.dtype)
        return layers.dense(channels, self.num_classes, dtype=dtype, name="classifier")(x)


class SelfTaughtOutputs(NamedTuple):
    """The result of a `SelfTaught` network.

    Attributes:
      backbone: as of `BranchedOutputs`.
      branches: as of `BranchedOutputs`.
      self_teacher: `[B, num_classes]`, the self-teacher's logits of every image.
    """

    backbone: Outputs
    branches: dict[str, Outputs]
    self_teacher: jax.Array


class SelfTaught(Branched):
    """A network with branches and a self-teacher over the last maps of all of them.

    The variables are those of `Branched` and `self_teacher`. The official network runs its
    self-teacher in training only.
    """

    @nn.compact
    def __call__(  # type: ignore[override]  # outputs with one more field
        self, images: jax.Array, train: bool = False, *, freeze_backbone: bool = False
    ) -> SelfTaughtOutputs:
        """Images `[B, H, W, C]` to all outputs; arguments as of `Branched`."""
        backbone, branches = super().__call__(images, train, freeze_backbone=freeze_backbone)
        maps = [last_map(outputs) for outputs in (*branches.values(), backbone)]
        teacher = SelfTeacher(self.network.num_classes, self.network.dtype, name="self_teacher")
        return SelfTaughtOutputs(backbone, branches, teacher(maps))


def self_taught(network: StagedNetwork) -> SelfTaught:
    """The network with a branch after every stage but the last, and a self-teacher: MixSKD."""
    return SelfTaught(network, stage_branches(network).heads)


def last_map(outputs: Outputs) -> jax.Array:
    """The feature map of the last computed stage."""
    return list(outputs.features.values())[-1]


class StageAggregator(nn.Module):
    """The sum of the logits of all S stages of one network, weighted by attention.

    The weights are computed from the embeddings: concatenation, a hidden layer of the size of one
    embedding, ReLU, a linear layer to one number per stage, softmax.

    Source: L-MCL; `Aggregator` in L-MCL models/aggregator.py, whose `proj_head_i.0` and
    `proj_head_i.2` are `hidden` and `output` of network i here.

    Attributes:
      dtype: of the computation, at least that of the logits.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, embeddings: Sequence[jax.Array], logits: Sequence[jax.Array]) -> jax.Array:
        """Embeddings `[B, D]` and logits `[B, num_classes]` of every stage to `[B, num_classes]`.

        Embeddings may differ in size; the size of the last one is that of the hidden layer.
        """
        x = jnp.concatenate(embeddings, axis=-1)
        hidden = embeddings[-1].shape[-1]
        x = nn.relu(layers.dense(x.shape[-1], hidden, dtype=self.dtype, name="hidden")(x))
        x = layers.dense(hidden, len(logits), dtype=self.dtype, name="output")(x)
        weights = nn.softmax(x)
        precision = jax.lax.Precision.HIGHEST
        return jnp.einsum("bs,bsc->bc", weights, jnp.stack(logits, axis=1), precision=precision)


class StageProjections(nn.Module):
    """L-MCL's meta network: a linear layer for every stage of every network.

    `losses.layer_weights` compares its projections of the stages' embeddings.

    Source: L-MCL; `LossWeightNetwork` in L-MCL models/meta_network.py, whose `proj.i.k` is
    `network_i_stage(k + 1)` here.

    Attributes:
      features: length of the projections.
    """

    features: int = 128

    @nn.compact
    def __call__(self, embeddings: Sequence[Sequence[jax.Array]]) -> list[list[jax.Array]]:
        """Embeddings `[B, D]` by network and stage to projections `[B, features]`, likewise."""
        projections: list[list[jax.Array]] = []
        for index, stages in enumerate(embeddings):
            projections.append([])
            for stage, x in enumerate(stages, start=1):
                dtype, name = accumulation_dtype(x.dtype), f"network_{index}_stage{stage}"
                dense = layers.dense(x.shape[-1], self.features, dtype=dtype, name=name)
                projections[-1].append(dense(x))
        return projections


register_form("mixskd", self_taught)
