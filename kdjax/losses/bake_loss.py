"""Batch knowledge ensembling (BAKE): images of a batch teach one another."""

import jax
import jax.numpy as jnp

from kdjax.losses.distillation import cross_entropy, kd
from kdjax.losses.forms import is_paper
from kdjax.losses.global_batch import gathered
from kdjax.numerics import at_least_float32, unit


def bake_targets(
    logits: jax.Array,
    embedding: jax.Array,
    *,
    temperature: float,
    omega: float,
    axis_name: str | None = None,
) -> jax.Array:
    """The soft targets of BAKE: predictions propagated among the images of a batch.

    `(1 - omega) (I - omega A)^-1 softmax(logits / T)`, where row b of A is the softmax over all
    other images of their cosine similarity with image b.

    Source: Ge et al., 2021, arXiv 2104.13298, section 3; checked against methods/bake.py of
    Self-KD-Lib.

    Args:
      logits: `[B, N]`.
      embedding: `[B, D]`, of any length.
      temperature: T > 0.
      omega: in [0, 1); 0 is the image's prediction itself.
      axis_name: name of the mapped device axis. With it, predictions come from the images of all
        devices. None means one device.

    Returns:
      `[B, N]` probabilities, constants.

    Raises:
      ValueError: logits or embeddings of other shapes.
    """
    if jnp.ndim(logits) != 2 or jnp.ndim(embedding) != 2 or len(logits) != len(embedding):
        raise ValueError(
            "BAKE needs logits [B, N] and embeddings [B, D] of the same images, got "
            f"{jnp.shape(logits)} and {jnp.shape(embedding)}"
        )
    logits, embedding = jax.lax.stop_gradient((logits, embedding))
    vectors = unit(at_least_float32(embedding))
    probabilities = jax.nn.softmax(at_least_float32(logits) / temperature, axis=-1)
    start: jax.Array | int = 0
    if axis_name is not None:
        start = jax.lax.axis_index(axis_name) * len(logits)
        vectors, probabilities = gathered((vectors, probabilities), axis_name)
    itself = jnp.eye(len(vectors), dtype=vectors.dtype)
    similarity = jnp.matmul(vectors, vectors.T, precision=jax.lax.Precision.HIGHEST)
    lowest = jnp.finfo(vectors.dtype).min
    affinity = jax.nn.softmax(jnp.where(itself > 0, lowest, similarity), axis=-1)
    propagated = jnp.linalg.solve(itself - omega * affinity, (1 - omega) * probabilities)
    return jax.lax.dynamic_slice_in_dim(propagated, start, len(logits))


def bake(
    logits: jax.Array,
    embedding: jax.Array,
    *,
    temperature: float,
    omega: float,
    form: str = "paper",
    axis_name: str | None = None,
) -> jax.Array:
    """Batch knowledge ensembling (BAKE): `T^2 KL(q || softmax(logits / T))`, q of `bake_targets`.

    It is added to the cross entropy of all images.

    Source: Ge et al., 2021, arXiv 2104.13298, section 3; checked against `methods/bake.py` of
    Self-KD-Lib. The paper's form is also that of the authors' code, `small_scale/train.py` of
    yxgeee/BAKE.

    Args:
      logits: `[B, N]`.
      embedding: `[B, D]`, a constant.
      temperature: T > 0. Paper: 4.
      omega: see `bake_targets`. Paper: 0.5.
      form: 'paper', or 'library': the targets pass through `softmax(. / T)` once more.
      axis_name: see `bake_targets`.

    Returns:
      `[B]`.

    Raises:
      ValueError: unknown form, or logits or embeddings of other shapes.
    """
    paper = is_paper(form)
    targets = bake_targets(
        logits, embedding, temperature=temperature, omega=omega, axis_name=axis_name
    )
    if not paper:
        return kd(logits, targets, temperature=temperature)
    negative_entropy = jax.scipy.special.xlogy(targets, targets).sum(axis=-1)
    softened = at_least_float32(logits) / temperature
    return temperature**2 * (negative_entropy + cross_entropy(softened, targets))
