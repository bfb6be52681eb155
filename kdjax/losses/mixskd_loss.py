"""MixSKD: mutual distillation between mixed images and the interpolation of their originals.

Source: Yang et al., ECCV 2022, "MixSKD: Self-Knowledge Distillation from Mixup for Image
Recognition", arXiv 2208.05768; checked against `main_mixskd_imagenet.py`, `main_mixskd_cifar.py`
and `methods/adversarial.py` of Self-KD-Lib.

A network has S outputs: those of its branches, and the backbone's as the last. All are for 2B
images: B originals, then the same mixed. Image i has the partner j. With z_l the logits of output
l, F_l its feature map, h the self-teacher's logits and D_l a discriminator on the averaged map;
f(x_i) an output for an image, f^ the interpolation of f(x_i) and f(x_j), f~ the output for their
mixture:

    cross_entropy        sum_l CE(z_l(x_i), y_i)
    mixed_cross_entropy  sum over z = z~_1 .. z~_S, h^, h~ of lam CE(z, y_i) + (1 - lam) CE(z, y_j)
    distillation         sum_{l < S} T^2 [KL(sg z~_l || z^_l) + KL(sg z^_l || z~_l)]
                         + T^2 [KL(sg h~ || z^_S) + KL(sg h^ || z~_S)]
    feature              sum_l mean (F^_l - F~_l)^2
    discrimination       sum_l mean of the binary cross entropies of D_l(F^_l) with (1, 0) and of
                         D_l(F~_l) with (0, 1)

Logits are interpolated, not probabilities. Both sides of `feature` move. The networks lower
`discrimination` as the discriminators do. The loss is the plain sum of all terms; the official
script for CIFAR leaves the mixed cross entropy out of it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdjax.losses.classes import class_labels
from kdjax.losses.distillation import cross_entropy, kd
from kdjax.losses.feature_maps import example_mean
from kdjax.losses.mixup import Mixture, mix, mixed_cross_entropy
from kdjax.numerics import at_least_float32, total


class MixedPair(NamedTuple):
    """The outputs for mixtures of B images, in two forms.

    Attributes:
      interpolated: `[B, ...]`, `lam * f(x_i) + (1 - lam) * f(x_j)`.
      mixed: `[B, ...]`, `f(lam * x_i + (1 - lam) * x_j)`.
    """

    interpolated: jax.Array
    mixed: jax.Array


class Mixskd(NamedTuple):
    """The terms of the loss, each `[B]`."""

    cross_entropy: jax.Array
    mixed_cross_entropy: jax.Array
    distillation: jax.Array
    feature: jax.Array
    discrimination: jax.Array


def mixed_pair(x: jax.Array, mixture: Mixture) -> MixedPair:
    """Logits, feature maps or vectors `[2B, ...]` of B images and of their mixtures, as a pair.

    Source: Yang et al., ECCV 2022, arXiv 2208.05768, section 3.

    The interpolation of a linear function's results is its result for interpolated arguments:
    averaged maps, and the logits of a `models.SelfTeacher`, may be interpolated after the fact.

    Args:
      x: `[2B, ...]`, of the B images, then of their mixtures.
      mixture: of the B images.

    Returns:
      Both `[B, ...]`, float32 at least.

    Raises:
      ValueError: not 2B rows.
    """
    count = mixture.order.shape[0]
    x = at_least_float32(x)
    if x.shape[0] != 2 * count:
        raise ValueError(
            f"{count} images and their mixtures make {2 * count} rows, got {x.shape[0]}"
        )
    return MixedPair(mix(x[:count], mixture), x[count:])


def mixskd(
    logits: Sequence[jax.Array],
    feature_maps: Sequence[jax.Array],
    self_teacher: MixedPair,
    discriminator_logits: Sequence[MixedPair],
    labels: jax.Array,
    mixture: Mixture,
    *,
    temperature: float,
) -> Mixskd:
    """The terms of MixSKD's loss of one network, by the equations of this module.

    Source: Yang et al., ECCV 2022, arXiv 2208.05768, section 3; checked against
    `main_mixskd_imagenet.py` of Self-KD-Lib.

    Args:
      logits: S arrays `[2B, N]` of the images and their mixtures, the backbone's as the last.
      feature_maps: S arrays `[2B, H, W, C]`, the last maps of branches and network.
      self_teacher: the self-teacher's logits `[B, N]`: for interpolated maps (or its interpolated
        logits, which are the same), and for the mixed images.
      discriminator_logits: S pairs of `[B, 2]`, of the averaged maps.
      labels: `[B]` integer classes of the images.
      mixture: how they were mixed.
      temperature: T > 0. Official code: 3.

    Returns:
      The terms, `[B]` each, in nats but `feature` (squared activations). `distillation` sends no
      gradient to the self-teacher.

    Raises:
      ValueError: different numbers of outputs, or of images.
    """
    lengths = {len(logits), len(feature_maps), len(discriminator_logits)}
    if len(lengths) > 1 or not logits:
        raise ValueError(
            f"MixSKD needs as many logits as maps and discriminators, got {len(logits)}, "
            f"{len(feature_maps)} and {len(discriminator_logits)}"
        )
    count = class_labels(labels, jnp.shape(mixture.order), of="mixture").shape[0]
    pairs = [mixed_pair(x, mixture) for x in logits]
    *branches, backbone = pairs
    mutual = [
        kd(pair.interpolated, pair.mixed, temperature=temperature)
        + kd(pair.mixed, pair.interpolated, temperature=temperature)
        for pair in branches
    ]
    # Crosswise: what is learned from the mixed image is taught where its logits are interpolated.
    taught = kd(backbone.interpolated, self_teacher.mixed, temperature=temperature)
    taught += kd(backbone.mixed, self_teacher.interpolated, temperature=temperature)
    mixed_logits = [pair.mixed for pair in pairs] + list(self_teacher)
    maps = [mixed_pair(x, mixture) for x in feature_maps]
    return Mixskd(
        cross_entropy=total(cross_entropy(x[:count], labels) for x in logits),
        mixed_cross_entropy=total(mixed_cross_entropy(z, labels, mixture) for z in mixed_logits),
        distillation=total([*mutual, taught]),
        feature=total(example_mean(jnp.square(pair.interpolated - pair.mixed)) for pair in maps),
        discrimination=total(_discrimination(pair) for pair in discriminator_logits),
    )


def _discrimination(logits: MixedPair) -> jax.Array:
    """`[B]`: binary cross entropies with (1, 0) and (0, 1), their mean over all four."""
    # - log sigmoid(x) is softplus(-x), and - log (1 - sigmoid(x)) is softplus(x).
    sign = jnp.array([-1, 1])
    interpolated = jax.nn.softplus(sign * at_least_float32(logits.interpolated))
    mixed = jax.nn.softplus(-sign * at_least_float32(logits.mixed))
    return (interpolated.mean(-1) + mixed.mean(-1)) / 2
