"""MCL with a memory bank of all training images as contrast."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from kdjax.losses.classes import class_labels
from kdjax.losses.contrastive import Likelihood, MutualContrast, contrast_terms
from kdjax.losses.global_batch import gathered
from kdjax.numerics import at_least_float32, unit

# Numbers of the rows that are gathered at once.
_GATHERED = 2**23


def memory_contrast(
    embeddings: Sequence[jax.Array],
    banks: Sequence[jax.Array],
    contrast: jax.Array,
    *,
    positives: int,
    temperature: float,
    kd_temperature: float,
) -> MutualContrast:
    """The losses of MCL against remembered embeddings, for any number of networks.

    With the similarities `s_ab[i, k] = <v_a(i), bank_b[contrast[i, k]]> / temperature`, of which
    column 0 is the image itself, columns 1 ... P images of its class and all others images of other
    classes:

        vcl       sum_a       mean_{1 <= p <= P}  -log(exp s_aa[i, p] / sum_{k > 0} exp s_aa[i, k])
        icl       sum_{a != b}  mean_{0 <= p <= P}  -log(exp s_ab[i, p] / sum_k exp s_ab[i, k])
        soft_vcl  sum_{a != b}  T^2 KL(sg softmax(s_bb[i] / T) || softmax(s_aa[i] / T)), k > 0
        soft_icl  sum_{a != b}  T^2 KL(sg softmax(s_ba[i] / T) || softmax(s_ab[i] / T)), every k

    Gradients reach the embeddings and not the banks. Rows of a bank are gathered once for all
    networks, for as many anchors at a time as make 32 MiB, and again in the backward pass: there is
    never an array `[B, K, D]` of all anchors.

    Source: Yang et al., AAAI 2022, arXiv 2104.12565; checked against `ContrastMemory` of
    `losses/imagenet_sup_mcl_loss.py` of the MCL repository.

    Args:
      embeddings: M arrays `[B, D]` of unit vectors.
      banks: M arrays `[images, D]`, as they were after the step before.
      contrast: `[B, 1 + P + K]` image numbers, in the order of the columns.
      positives: P, at least 1.
      temperature: tau > 0. Paper: 0.07.
      kd_temperature: T > 0 of the soft terms, on top of tau. Official code: 3.

    Returns:
      `MutualContrast` of four `[B]` arrays, in nats; the soft terms include T squared.

    Raises:
      ValueError: shapes that do not go together.

    >>> units = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> contrast = jnp.array([[0, 0, 1], [1, 1, 0]])
    >>> terms = memory_contrast(
    ...     [units], [units], contrast, positives=1, temperature=0.5, kd_temperature=3.0
    ... )
    >>> print(terms.vcl)
    [0.126... 0.126...]
    """
    anchors = [at_least_float32(embedding) for embedding in embeddings]
    _check(anchors, banks, contrast, positives)
    stacked = jnp.stack(anchors)
    scores = [_similarities(stacked, bank, contrast) / temperature for bank in banks]
    count = len(anchors)
    within = [scores[a][a][:, 1:] for a in range(count)]
    across = {(a, b): scores[b][a] for a in range(count) for b in range(count) if a != b}

    def likelihood(number: int) -> Likelihood:
        return lambda s: jax.nn.logsumexp(s, axis=1) - jnp.mean(s[:, :number], axis=1)

    return contrast_terms(
        within, across, kd_temperature, likelihood(positives), likelihood(1 + positives)
    )


def _check(
    anchors: Sequence[jax.Array],
    banks: Sequence[jax.Array],
    contrast: jax.Array,
    positives: int,
) -> None:
    if not anchors or len(anchors) != len(banks):
        raise ValueError(f"{len(anchors)} embeddings and {len(banks)} banks: give as many of both")
    shapes = [{jnp.shape(array) for array in arrays} for arrays in (anchors, banks)]
    alike = [len(distinct) == 1 and len(min(distinct)) == 2 for distinct in shapes]
    batch, rows = map(min, shapes)
    fits = all(alike) and batch[1] == rows[1]
    if not fits or jnp.ndim(contrast) != 2 or contrast.shape[0] != batch[0]:
        raise ValueError(
            "memory contrast needs embeddings [B, D], banks [images, D] and contrast "
            f"[B, 1 + P + K], got {sorted(shapes[0])}, {sorted(shapes[1])} and "
            f"{jnp.shape(contrast)}"
        )
    if not 1 <= positives < contrast.shape[1] - 1:
        raise ValueError(f"positives={positives}: contrast has {contrast.shape[1]} columns")


def _similarities(anchors: jax.Array, bank: jax.Array, contrast: jax.Array) -> jax.Array:
    """`[M, B, K]` inner products of anchors `[M, B, D]` and the rows `contrast` `[B, K]`."""
    size, columns = contrast.shape
    at_once = max(1, min(size, _GATHERED // (columns * bank.shape[1])))

    @jax.checkpoint  # rows are gathered again rather than kept for the backward pass
    def of_some(bank: jax.Array, anchors: jax.Array, index: jax.Array) -> jax.Array:
        rows = jax.lax.stop_gradient(bank)[index].astype(anchors.dtype)
        precision = jax.lax.Precision.HIGHEST
        return jnp.einsum("bmd,bkd->bmk", anchors, rows, precision=precision)

    def of_one(one: tuple[jax.Array, jax.Array]) -> jax.Array:
        return of_some(bank, one[0][None], one[1][None])[0]

    anchors = jnp.swapaxes(anchors, 0, 1)
    if at_once == size:
        products = of_some(bank, anchors, contrast)
    else:
        products = jax.lax.map(of_one, (anchors, contrast), batch_size=at_once)
    return jnp.swapaxes(products, 0, 1)


def remember_embeddings(
    bank: jax.Array,
    index: jax.Array,
    embedding: jax.Array,
    *,
    momentum: float,
    axis_name: str | None = None,
) -> jax.Array:
    """A bank after a step: rows `momentum * row + (1 - momentum) * embedding`, of unit length.

    Every image of the global batch moves its row once; of an image that comes several times the
    first place counts.

    Source: Yang et al., AAAI 2022, arXiv 2104.12565; checked against `ContrastMemory` of
    `losses/imagenet_sup_mcl_loss.py` of the MCL repository.

    Args:
      bank: `[images, D]`.
      index: `[B]` the images' numbers.
      embedding: `[B, D]` unit vectors; no gradient reaches them.
      momentum: what is kept of a row. Paper: 0.5.
      axis_name: name of the mapped device axis. With it, the rows of the images of all devices
        move, so that the bank is equal on all of them. None means one device.

    Returns:
      `[images, D]`, of the bank's dtype.

    Raises:
      ValueError: index or embeddings of other shapes.
    """
    bank, embedding = jnp.asarray(bank), at_least_float32(jax.lax.stop_gradient(embedding))
    index = class_labels(index, embedding.shape[:1], of="embeddings")
    if axis_name is not None:
        index, embedding = gathered((index, embedding), axis_name)
    moved = unit(momentum * bank[index].astype(embedding.dtype) + (1 - momentum) * embedding)
    earlier = jnp.tril(index[:, None] == index[None, :], k=-1).any(axis=1)
    place = jnp.where(earlier, bank.shape[0], index)  # outside: dropped
    return bank.at[place].set(moved.astype(bank.dtype), mode="drop")
