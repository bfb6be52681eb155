"""Noise-contrastive estimation with memory banks: what CRD and MCL-OKD have in common."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from kdjax.losses.classes import class_labels
from kdjax.losses.global_batch import gathered
from kdjax.losses.memory_bank import remember_embeddings
from kdjax.numerics import at_least_float32

# As in the official code, there is an epsilon in the denominators only.
_EPSILON = 1e-7


def nce(log_scores: jax.Array, *, images: int) -> jax.Array:
    """Noise-contrastive estimation: one positive image told apart from K drawn ones.

    With h the scores and n = K / images, the expected number of draws of one image:

        -log(h_0 / (h_0 + n)) - sum_k log(n / (h_k + n))

    Source: Gutmann and Hyvarinen, AISTATS 2010; checked against `ContrastLoss` in
    `mcl/criterion.py` of the MCL-OKD repository.

    Args:
      log_scores: `[B, 1 + K]` logarithms of normalized scores, the positive image's first.
      images: number of images that the K are drawn from.

    Returns:
      `[B]`, in nats.

    Raises:
      ValueError: not two axes.
    """
    if jnp.ndim(log_scores) != 2:
        raise ValueError(f"NCE needs scores [B, 1 + K], got {jnp.shape(log_scores)}")
    log_scores = at_least_float32(log_scores)
    noise = (log_scores.shape[1] - 1) / images
    either = jnp.logaddexp(log_scores, math.log(noise + _EPSILON))
    positive = either[:, 0] - log_scores[:, 0]
    return positive + jnp.sum(either[:, 1:] - math.log(noise), axis=1)


def mutual_nce(
    embeddings: Sequence[jax.Array],
    index: jax.Array,
    contrast: jax.Array,
    memories: Sequence[jax.Array],
    *,
    temperature: float,
    momentum: float,
    axis_name: str | None = None,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """The contrastive loss of MCL-OKD: every network against every other one's memory bank.

    The sum over ordered pairs of networks a != b of `nce`, with the scores
    `exp(<v_a(i), m_b(k)> / temperature) / Z`, of anchor i in network a and remembered image k of
    network b. Z is, of every batch and pair anew, `images` times the mean of the exponentials.
    Afterwards the anchors' rows of the banks become `momentum * row + (1 - momentum) * embedding`,
    of unit length.

    Gradients reach the embeddings, not the memories, nor Z.

    Source: Yang et al., ICASSP 2021, arXiv 2006.04093, equation 11; checked against
    `mcl/criterion.py` and `mcl/memory.py` of the MCL-OKD repository.

    Args:
      embeddings: M >= 2 arrays `[B, D]` of unit vectors.
      index: `[B]` the images' numbers, different from each other.
      contrast: `[B, 1 + K]` image numbers: the image itself, then those to tell it apart from.
      memories: M arrays `[images, D]`, of the step before.
      temperature: tau > 0. Official code: 0.1.
      momentum: what is kept of the memory. Official code: 0.5.
      axis_name: name of the mapped device axis. With it, Z and the returned memories are those of
        the images of all devices, equal on all of them. None means one device.

    Returns:
      `[B]`, in nats, and the memories after this step.

    Raises:
      ValueError: fewer than two networks, or shapes that do not fit together.

    >>> units = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> value, _ = mutual_nce(
    ...     [units, units], jnp.array([0, 1]), jnp.array([[0, 1], [1, 0]]), [units, units],
    ...     temperature=1.0, momentum=0.5,
    ... )
    >>> print(value)
    [1.90... 1.90...]
    """
    if len(embeddings) < 2 or len(embeddings) != len(memories):
        raise ValueError(
            f"mutual NCE needs two networks or more and a memory of each, got {len(embeddings)} "
            f"embeddings and {len(memories)} memories"
        )
    embeddings = [at_least_float32(embedding) for embedding in embeddings]
    index = class_labels(index, embeddings[0].shape[:1], of="embeddings")
    banks = [jax.lax.stop_gradient(jnp.asarray(bank)) for bank in memories]
    images = banks[0].shape[0]
    scores = [
        remembered_products(embedding, bank, contrast) / temperature
        for a, embedding in enumerate(embeddings)
        for b, bank in enumerate(banks)
        if a != b
    ]
    total = jnp.zeros(index.shape, embeddings[0].dtype)
    for pair_scores, constant in zip(scores, normalizers(scores, images, axis_name), strict=True):
        total += nce(pair_scores - jnp.log(constant), images=images)
    return total, updated_memories(banks, index, embeddings, momentum=momentum, axis_name=axis_name)


def remembered_products(embedding: jax.Array, bank: jax.Array, contrast: jax.Array) -> jax.Array:
    """`[B, 1 + K]` inner products of embeddings `[B, D]` and rows of a memory `[images, D]`.

    Products with all rows, of which the wanted ones are taken, need less memory and time than K
    rows for every image.
    """
    bank = bank.astype(embedding.dtype)
    products = jnp.matmul(embedding, bank.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.take_along_axis(products, contrast, axis=1)


def normalizers(scores: Sequence[jax.Array], images: int, axis_name: str | None) -> jax.Array:
    """Z `[pairs]` of the scores of each pair: `images` times the mean of exp(score), constants."""
    means = jnp.stack(
        [jnp.mean(jnp.exp(jax.lax.stop_gradient(pair_scores))) for pair_scores in scores]
    )
    return images * (means if axis_name is None else jax.lax.pmean(means, axis_name))


def updated_memories(
    memories: Sequence[jax.Array],
    index: jax.Array,
    embeddings: Sequence[jax.Array],
    *,
    momentum: float,
    axis_name: str | None = None,
) -> tuple[jax.Array, ...]:
    """Memories whose rows of a batch's images are moved: `remember_embeddings` of each of them.

    Source: Tian et al., ICLR 2020, arXiv 1910.10699, section 3.4; `ContrastMemory` of the
    RepDistiller, MCL and MCL-OKD repositories.

    Args:
      memories: arrays `[images, D]`.
      index: `[B]` the images' numbers.
      embeddings: as many arrays `[B, D]`.
      momentum: what is kept of a row.
      axis_name: name of the mapped device axis, over whose images rows are moved.

    Returns:
      The memories `[images, D]`; rows that were moved are of unit length.
    """
    if axis_name is not None:
        index, embeddings = gathered((index, jax.lax.stop_gradient(list(embeddings))), axis_name)
    return tuple(
        remember_embeddings(memory, index, embedding, momentum=momentum)
        for memory, embedding in zip(memories, embeddings, strict=True)
    )
