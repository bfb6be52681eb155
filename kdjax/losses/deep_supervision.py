"""Losses of a network with auxiliary heads, which learn labels and from one another: DKS, BYOT."""

from collections.abc import Sequence
from typing import NamedTuple

import jax

from kdjax.losses.classes import labels_of
from kdjax.losses.distillation import cross_entropy, kd, mutual_learning
from kdjax.losses.features import hint
from kdjax.numerics import total


class Dks(NamedTuple):
    """The terms of DKS, `[B]` each; the loss is their sum.

    Attributes:
      cross_entropy: of the labels, summed over the backbone's logits and its heads'.
      distillation: `T^2 KL`, summed over all ordered pairs of these.
    """

    cross_entropy: jax.Array
    distillation: jax.Array


def dks(logits: Sequence[jax.Array], labels: jax.Array, *, temperature: float) -> Dks:
    """Deeply-supervised knowledge synergy (DKS): every head learns from every other one.

    The head that is learned from is a constant.

    Source: Sun et al., CVPR 2019, arXiv 1906.00675, with all pairs of heads; checked against
    methods/dks.py of Self-KD-Lib.

    Args:
      logits: K >= 2 arrays `[..., N]`, of the network and of its heads.
      labels: `[...]` integer classes.
      temperature: T > 0.

    Returns:
      `cross_entropy` and `distillation`, `[...]` each, in nats.

    Raises:
      ValueError: fewer than two arrays of logits, or shapes that do not fit together.
    """
    # Mutual learning divides by the number of others; the sum is over them here.
    pairs = mutual_learning(logits, temperature=temperature) * (len(logits) - 1)
    return Dks(total(cross_entropy(x, labels_of(x, labels)) for x in logits), pairs)


class Byot(NamedTuple):
    """The terms of BYOT, `[B]` each.

    Attributes:
      cross_entropy: of the labels, summed over the backbone's logits and its heads'.
      distillation: `T^2 KL` of every head from the backbone, summed over heads.
      features: mean squares between a head's map and the backbone's, summed over heads.
    """

    cross_entropy: jax.Array
    distillation: jax.Array
    features: jax.Array


def byot(
    logits: Sequence[jax.Array],
    features: Sequence[jax.Array],
    labels: jax.Array,
    *,
    temperature: float,
) -> Byot:
    """Be your own teacher (BYOT): heads learn from the backbone's logits and last map.

    Self-KD-Lib weighs the terms 1, 1 and 0.05. The backbone is a constant in both comparisons.

    Source: Zhang et al., ICCV 2019, arXiv 1905.08094; checked against methods/byot.py of
    Self-KD-Lib.

    Args:
      logits: K >= 2 arrays `[B, N]`: the backbone's, then those of its heads.
      features: K arrays `[B, H, W, C]`: last maps in the same order, all of one shape.
      labels: `[B]` integer classes.
      temperature: T > 0.

    Returns:
      `cross_entropy`, `distillation` and `features`, `[B]` each.

    Raises:
      ValueError: there are no heads, or the maps differ in number or shape.
    """
    if len(logits) < 2 or len(features) != len(logits):
        raise ValueError(
            f"BYOT needs the logits and maps of a network and its heads, got {len(logits)} and "
            f"{len(features)}"
        )
    backbone, *heads = logits
    last_map, *maps = features
    return Byot(
        total(cross_entropy(x, labels_of(x, labels)) for x in logits),
        total(kd(head, backbone, temperature=temperature) for head in heads),
        hint(maps, [last_map] * len(maps)),
    )
