"""Cohorts with additional modules for online distillation: ONE, OKDDip and CL-ILR.

Checked against MCL-OKD models/one_*.py, okddip_*.py and cl_ilr_*.py. Gates, attention and their
weighted sums are computed in float32 at least, as logits are.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.errors import UserError
from kdjax.models import layers
from kdjax.models.cohort import Cohort, numbered, one_architecture
from kdjax.models.outputs import Outputs
from kdjax.models.parts import Part, Parts, parts_below
from kdjax.numerics import accumulation_dtype

_SQUEEZE = 8  # channels of an embedding per channel of its query and of its key


class GatedOutputs(NamedTuple):
    """The result of a `GatedCohort` of N networks.

    Attributes:
      networks: the outputs of every network.
      ensemble: `[B, num_classes]`, the gated sum of their logits: the teacher of all.
    """

    networks: tuple[Outputs, ...]
    ensemble: jax.Array


class GatedCohort(Cohort):
    """ONE: networks with common early stages, and a gate that weighs their logits by the image.

    The gate sees the shared feature map: average pooling, a linear layer to one number per network,
    BatchNorm, ReLU, softmax. Its variables are `gate_dense` and `gate_bn`.

    Source: Lan et al. 2018, section 3.
    """

    shared_stages: int = 2

    @nn.compact
    def __call__(  # type: ignore[override]  # nothing is mixed inside
        self, images: jax.Array, train: bool = False
    ) -> GatedOutputs:
        """Images `[B, H, W, C]` to the outputs of every network and their ensemble.

        Raises:
          UserError: no shared stage, or networks of different architectures.
        """
        if not self.shared_stages:
            raise UserError("the gate sees the shared feature map; set shared_stages to at least 1")
        outputs = super().__call__(images, train)
        dtype = accumulation_dtype(self.networks[0].dtype)
        x = layers.global_average_pool(outputs[0].features[f"stage{self.shared_stages}"])
        x = layers.dense(x.shape[-1], len(outputs), dtype=dtype, name="gate_dense")(x)
        norm = layers.BatchNorm(dtype=dtype, axis_name=self.networks[0].axis_name, name="gate_bn")
        gate = nn.softmax(nn.relu(norm(x, train)))
        return GatedOutputs(outputs, _weighted_sum("bn,bnc->bc", gate, outputs))


class PeerOutputs(NamedTuple):
    """The result of a `PeerAttentionCohort` of P peers and a leader.

    Attributes:
      networks: the outputs of every network; the last one is the leader, the student.
      targets: `[B, P, num_classes]`, the target logits of each peer.
    """

    networks: tuple[Outputs, ...]
    targets: jax.Array


class PeerAttentionCohort(Cohort):
    """OKDDip: peers with individual targets, weighted by attention, and a group leader.

    Two linear layers without bias (`query`, `key`) project the peers' embeddings to an eighth of
    their size. The target of a peer is the sum of all peers' logits, including the peer itself,
    weighted by the softmax of the products of its query and all keys.

    Source: Chen et al. 2020, section 3.
    """

    shared_stages: int = 2

    @nn.compact
    def __call__(  # type: ignore[override]  # nothing is mixed inside
        self, images: jax.Array, train: bool = False
    ) -> PeerOutputs:
        """Images `[B, H, W, C]` to the outputs of every network and the targets of the peers.

        Raises:
          UserError: fewer than two networks, embeddings of different sizes, or sharing networks of
            different architectures.
        """
        if len(self.networks) < 2:
            raise UserError("OKDDip needs a leader and at least one peer: two networks or more")
        outputs = super().__call__(images, train)
        *peers, _ = outputs
        size, *others = {peer.embedding.shape[-1] for peer in peers}
        if others:
            raise UserError(
                "OKDDip compares embeddings; give peers whose embeddings are equally long"
            )
        dtype = accumulation_dtype(self.networks[0].dtype)
        embeddings = jnp.stack([peer.embedding for peer in peers], axis=1).astype(dtype)
        project = functools.partial(
            layers.dense, size, size // _SQUEEZE, use_bias=False, dtype=dtype
        )
        queries, keys = project(name="query")(embeddings), project(name="key")(embeddings)
        energy = jnp.einsum("bqd,bkd->bqk", queries, keys, precision=jax.lax.Precision.HIGHEST)
        return PeerOutputs(outputs, _weighted_sum("bqk,bkc->bqc", nn.softmax(energy), peers))


def _weighted_sum(formula: str, weights: jax.Array, outputs: Sequence[Outputs]) -> jax.Array:
    logits = jnp.stack([output.logits for output in outputs], axis=1)
    # The default precision of some devices is below float32.
    return jnp.einsum(formula, weights, logits, precision=jax.lax.Precision.HIGHEST)


class TreeCohort(nn.Module):
    """CL-ILR: networks that share a tree of stages, with gradients averaged at its splits.

    The stem and the first stages are shared by all networks (`trunk`), the following stages by
    pairs (`pair_i`); the remaining stages and the classifier are not shared (`network_i`). The
    gradient into a shared part with n branches is divided by n, so that the depth of sharing does
    not change the size of the updates. With an odd number of networks, the last pair has one.

    Source: Song and Chai 2018, section 3 (multiple heads, sharing of intermediate-level
    representations, backpropagation rescaling).

    Attributes:
      networks: networks of one architecture.
      shared_stages: how many stages all networks share. MCL-OKD's VGG-16 has 3.
      pair_stages: how many stages after these every pair shares.
      trunk_divisor: divisor of the gradient into the trunk; None for the number of pairs. The
        official code divides by 2, whatever the number of pairs.
    """

    networks: tuple[Any, ...]
    shared_stages: int = 1
    pair_stages: int = 1
    trunk_divisor: int | None = None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> tuple[Outputs, ...]:
        """Images `[B, H, W, C]` to the `Outputs` of every network, with all features on its path.

        Raises:
          UserError: networks of different architectures.
        """
        if not one_architecture(self.networks):
            raise UserError(
                "CL-ILR needs networks of one architecture; name the same network for all"
            )
        pairs = [self.networks[index : index + 2] for index in range(0, len(self.networks), 2)]
        trunk = self.networks[0].clone(parent=self, name="trunk")
        first, second = self.shared_stages, self.shared_stages + self.pair_stages
        shared = trunk(images, train, stop=first).features
        x = divide_gradient(shared[f"stage{first}"], self.trunk_divisor or len(pairs))
        outputs: list[Outputs] = []
        for index, pair in enumerate(pairs):
            middle = pair[0].clone(parent=self, name=f"pair_{index}")
            pair_features = middle(x, train, start=first, stop=second).features
            y = divide_gradient(pair_features[f"stage{second}"], len(pair))
            for network in pair:
                network = network.clone(parent=self, name=f"network_{len(outputs)}")
                result = network(y, train, start=second)
                outputs.append(result._replace(features=shared | pair_features | result.features))
        return tuple(outputs)

    @nn.nowrap
    def network_parts(self) -> Parts:
        """The trunk, what pairs share, and the networks."""
        shared = Part(self.networks[0], shared=True)
        pairs = {f"pair_{index}": shared for index in range((len(self.networks) + 1) // 2)}
        return {"trunk": shared, **pairs} | parts_below(numbered(self.networks))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def divide_gradient(x: jax.Array, branches: int) -> jax.Array:
    """The identity, whose gradient is divided by `branches`."""
    del branches
    return x


@divide_gradient.defjvp
def _divide_gradient_jvp(
    branches: int, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    return primals[0], tangents[0] / branches
