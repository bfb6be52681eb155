"""Mutual contrastive learning (MCL), supervised, with the other images of the batch as contrast."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdjax.losses.classes import class_labels
from kdjax.losses.distillation import kd
from kdjax.losses.global_batch import gathered
from kdjax.numerics import at_least_float32


class MutualContrast(NamedTuple):
    """The four terms of MCL, each `[B]`: one value per anchor image, summed over networks."""

    vcl: jax.Array
    soft_vcl: jax.Array
    icl: jax.Array
    soft_icl: jax.Array


def mutual_contrast(
    embeddings: Sequence[jax.Array],
    labels: jax.Array,
    *,
    temperature: float,
    kd_temperature: float,
    axis_name: str | None = None,
    gather_gradient: bool = True,
) -> MutualContrast:
    """The supervised in-batch losses of MCL for any number of networks.

    With the similarities `s_ab[i, k] = <v_a(i), v_b(k)> / temperature` of anchor i in network a and
    image k in network b, P(i) the other images of i's class, and all sums over k != i:

        vcl       sum_a          mean_{p in P(i)} -log(exp s_aa[i, p] / sum_k exp s_aa[i, k])
        icl       sum_{a != b}   mean_{p in P(i)} -log(exp s_ab[i, p] / sum_k exp s_ab[i, k])

    and, over every k (the anchor's column included), with T = kd_temperature:

        soft_vcl  sum_{a != b}   T^2 KL(sg softmax(s_bb[i] / T) || softmax(s_aa[i] / T))
        soft_icl  sum_{a != b}   T^2 KL(sg softmax(s_ba[i] / T) || softmax(s_ab[i] / T))

    Source: Yang et al., AAAI 2022, arXiv 2104.12565, section 3; checked against
    `losses/cifar_sup_mcl_loss.py` of the MCL repository, `SupMCL`. An anchor without another image
    of its class in the batch contributes 0 to vcl and icl (the official code divides by zero).

    Args:
      embeddings: M arrays `[B, D]` of unit vectors.
      labels: `[B]` integer classes.
      temperature: tau > 0; stable down to 0.01.
      kd_temperature: T > 0 of the soft terms, applied on top of tau.
      axis_name: name of the mapped device axis. With it, anchors are this device's images and the
        contrast is with the images of all devices, so that the mean over devices equals the loss of
        one device with the global batch. None means one device.
      gather_gradient: whether gradients reach the gathered embeddings of the other devices. True
        gives the gradient of the global loss; False matches `torch.distributed.all_gather`.

    Returns:
      `MutualContrast` of four `[B]` arrays, in nats; the soft terms include T squared.

    Raises:
      ValueError: labels or embeddings of other shapes.

    >>> units = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> terms = mutual_contrast(
    ...     [units, units], jnp.array([0, 0, 1, 1]), temperature=0.5, kd_temperature=3.0
    ... )
    >>> print(terms.vcl)
    [0.479... 0.479... 0.479... 0.479...]
    >>> print(terms.soft_vcl)
    [0. 0. 0. 0.]
    """
    embeddings = [at_least_float32(embedding) for embedding in embeddings]
    labels = _check(embeddings, labels)
    contrast = Contrast(embeddings, labels, axis_name, gather_gradient)
    pairs = [(a, b) for a in range(len(embeddings)) for b in range(len(embeddings)) if a != b]
    within = [contrast.similarity(a, a) / temperature for a in range(len(embeddings))]
    across = contrast.cross_similarities(pairs, temperature)
    likelihood = contrast.negative_log_likelihood
    return contrast_terms(within, across, kd_temperature, likelihood, likelihood)


# Negative log likelihoods `[B]` of the positives among similarities `[B, K]`.
Likelihood = Callable[[jax.Array], jax.Array]


def contrast_terms(
    within: Sequence[jax.Array],
    across: Mapping[tuple[int, int], jax.Array],
    kd_temperature: float,
    within_likelihood: Likelihood,
    across_likelihood: Likelihood,
) -> MutualContrast:
    """The four terms of MCL from similarities, whatever the anchors are compared with.

    Args:
      within: of each network, `[B, K]`: anchors and contrast of that network, over the temperature.
      across: by ordered pairs (a, b) of networks, `[B, C]`: anchors of a and contrast of b.
      kd_temperature: T of the soft terms.
      within_likelihood: of the similarities `within`.
      across_likelihood: of the similarities `across`.
    """
    zeros = jnp.zeros(within[0].shape[:1], within[0].dtype)
    soft = functools.partial(kd, temperature=kd_temperature)
    return MutualContrast(
        vcl=sum((within_likelihood(s) for s in within), zeros),
        soft_vcl=sum((soft(within[a], within[b]) for a, b in across), zeros),
        icl=sum((across_likelihood(s) for s in across.values()), zeros),
        soft_icl=sum((soft(across[a, b], across[b, a]) for a, b in across), zeros),
    )


def _check(embeddings: Sequence[jax.Array], labels: jax.Array) -> jax.Array:
    """The labels `[B]`, if the embeddings are `[B, D]` each, of one D."""
    if not embeddings:
        raise ValueError("mutual contrast needs the embeddings of at least one network")
    shapes = [embedding.shape for embedding in embeddings]
    if len(set(shapes)) > 1 or len(shapes[0]) != 2:
        listed = ", ".join(map(str, shapes))
        raise ValueError(f"mutual contrast compares embeddings [B, D] of one shape, got {listed}")
    return class_labels(labels, shapes[0][:1], of="embeddings")


class Contrast:
    """The batch's anchors (rows), the images they are compared with (columns), and who is who."""

    def __init__(
        self,
        embeddings: Sequence[jax.Array],
        labels: jax.Array,
        axis_name: str | None,
        gather_gradient: bool,
    ) -> None:
        self.rows = embeddings
        self.axis_name = axis_name
        offset: jax.Array | int = 0
        column_labels = labels
        self.columns = embeddings
        if axis_name is not None:
            offset = jax.lax.axis_index(axis_name) * labels.shape[0]
            columns, column_labels = gathered((list(embeddings), labels), axis_name)
            if not gather_gradient:
                columns = [
                    jax.lax.dynamic_update_slice_in_dim(jax.lax.stop_gradient(x), mine, offset, 0)
                    for x, mine in zip(columns, embeddings, strict=True)
                ]
            self.columns = columns
        anchor_column = offset + jnp.arange(labels.shape[0])
        self.others = anchor_column[:, None] != jnp.arange(column_labels.shape[0])[None, :]
        self.positives = (labels[:, None] == column_labels[None, :]) & self.others

    def similarity(self, a: int, b: int) -> jax.Array:
        """`[B, columns]` inner products of anchors in network a and images in network b."""
        return jnp.matmul(self.rows[a], self.columns[b].T, precision=jax.lax.Precision.HIGHEST)

    def cross_similarities(
        self, pairs: Iterable[tuple[int, int]], temperature: float
    ) -> dict[tuple[int, int], jax.Array]:
        """The similarities of all ordered pairs, over the temperature; on one device the matrix of
        (b, a) is the transpose of that of (a, b) and is not computed again."""
        across: dict[tuple[int, int], jax.Array] = {}
        for a, b in pairs:
            if self.axis_name is None and (b, a) in across:
                across[a, b] = across[b, a].T
            else:
                across[a, b] = self.similarity(a, b) / temperature
        return across

    def negative_log_likelihood(self, logits: jax.Array) -> jax.Array:
        """`[..., B]`: mean over the positives of -log softmax, the anchor's column left out.

        Args:
          logits: `[..., B, columns]`.
        """
        log_normalizer = jax.nn.logsumexp(logits, axis=-1, where=self.others)
        positives = jnp.sum(self.positives, axis=-1)
        total = jnp.sum(jnp.where(self.positives, logits, 0.0), axis=-1)
        mean = total / jnp.maximum(positives, 1)
        return jnp.where(positives > 0, log_normalizer - mean, 0.0)
