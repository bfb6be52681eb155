"""Distillation of feature maps' singular vectors (KDSVD)."""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from kdjax.losses.feature_maps import in_order, same_channels
from kdjax.numerics import total, unit

einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)

# The student's vectors to choose from, beyond the number of the teacher's.
SPARE_VECTORS = 3


def kdsvd(
    student: Sequence[jax.Array],
    teacher: Sequence[jax.Array],
    *,
    k: int = 1,
    teacher_signs: Sequence[jax.Array] | None = None,
) -> jax.Array:
    """Distillation of the relation between the singular vectors of consecutive layers (KDSVD).

    An image's map, as a matrix `[H * W, C]`, has the right singular vectors v_1, v_2, ... (longest
    singular value first). For each of the teacher's first k the student's of the largest |cosine|
    is taken, of its first k + 3, with the sign that makes the cosine positive. Both are multiplied
    by the teacher's singular value (the k values scaled to length 1). Then

        sum_i sum_{c,d,j} (R_s - R_t)^2,  R[c, d, j] = exp(-(v_{i+1,j}[c] - v_{i,j}[d])^2 / 8)

    over consecutive layers i, i + 1. The teacher is a constant.

    The sign of singular vectors is arbitrary, and R depends on how those of two layers compare.
    Here the teacher's are turned so that their entries' sum is not negative: for maps after a ReLU,
    the first one then has no negative entry. The value does not depend on the library's choice.

    Source: Lee et al., ECCV 2018, "Self-supervised knowledge distillation using singular value
    decomposition"; checked against `distiller_zoo/KDSVD.py` of RepDistiller, `KDSVD`
    (which leaves the signs as they come). Gradients of coinciding singular values, infinite
    there, are left out.

    Args:
      student: two maps `[B, H, W, C]` or more, the first layer first.
      teacher: likewise, with the student's numbers of channels; resolutions may differ.
      k: number of singular vectors, at most min(H * W, C) of every teacher's map.
      teacher_signs: `[B, C, k]` per layer: the teacher's vectors are turned so that their inner
        products with these are not negative. Ones by default.

    Returns:
      `[B]`, summed over the pairs of consecutive layers.

    Raises:
      ValueError: numbers of channels differ, fewer than two layers, layers without an order, or k
        too large.
    """
    pairs = in_order(student, teacher, stop_teacher=True)
    if len(pairs) < 2:
        raise ValueError(f"KDSVD relates consecutive layers: give two or more, not {len(pairs)}")
    signs = [None] * len(pairs) if teacher_signs is None else teacher_signs
    vectors = [_vectors(s, t, k, like) for (s, t), like in zip(pairs, signs, strict=True)]
    terms = []
    for below, above in itertools.pairwise(vectors):
        difference = _relation(below[0], above[0]) - _relation(below[1], above[1])
        terms.append(jnp.sum(jnp.square(difference), axis=(1, 2, 3)))
    return total(terms)


def _vectors(
    student: jax.Array, teacher: jax.Array, k: int, like: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """`[B, C, k]` of the student and of the teacher: paired, turned and scaled."""
    same_channels(student, teacher)
    student, teacher = (
        x.reshape(len(x), x.shape[1] * x.shape[2], x.shape[3]) for x in (student, teacher)
    )
    if not 1 <= k <= min(teacher.shape[1:]):
        raise ValueError(
            f"maps of {teacher.shape[1]} positions and {teacher.shape[2]} channels "
            f"do not have k={k} singular vectors"
        )
    values, rows = _svd(teacher)
    teacher_vectors = rows[:, :k].swapaxes(1, 2)
    along = teacher_vectors.sum(1) if like is None else jnp.sum(teacher_vectors * like, axis=1)
    teacher_vectors = (
        teacher_vectors * jnp.where(along < 0, -1.0, 1.0).astype(teacher_vectors.dtype)[:, None, :]
    )
    student_vectors = right_singular_vectors(student, min(k + SPARE_VECTORS, *student.shape[1:]))
    scale = unit(values[:, :k])[:, None, :]
    return _counterparts(student_vectors, teacher_vectors) * scale, teacher_vectors * scale


def _counterparts(student_vectors: jax.Array, teacher_vectors: jax.Array) -> jax.Array:
    """Of the student's `[B, C, n]`, the vectors most parallel to the teacher's `[B, C, k]`."""
    cosines = einsum("bcn,bck->bnk", student_vectors, teacher_vectors)
    best = jnp.argmax(jnp.abs(cosines), axis=1)[:, None, :]
    sign = jnp.where(jnp.take_along_axis(cosines, best, axis=1) < 0, -1.0, 1.0)
    return jnp.take_along_axis(student_vectors, best, axis=2) * sign.astype(student_vectors.dtype)


def _relation(below: jax.Array, above: jax.Array) -> jax.Array:
    """`[B, C', C, k]`: a radial basis function of all pairs of entries of two layers' vectors."""
    return jnp.exp(-jnp.square(above[:, :, None, :] - below[:, None, :, :]) / 8)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def right_singular_vectors(x: jax.Array, count: int) -> jax.Array:
    """The first `count` right singular vectors of matrices, `[..., N, C] -> [..., C, count]`.

    Where singular values coincide, the vectors turn infinitely fast within their plane; this part
    of the derivative is left out, so that gradients are always finite (zero for a zero matrix).
    """
    return _svd(x)[1][..., :count, :].swapaxes(-1, -2)


@right_singular_vectors.defjvp
def _right_singular_vectors_jvp(
    count: int, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """First-order perturbation of the eigenvectors of `x^T x`."""
    (x,), (dx,) = primals, tangents
    values, rows = _svd(x)
    every = rows.swapaxes(-1, -2)
    vectors = every[..., :count]
    change = einsum("...nc,...nk->...ck", dx, einsum("...nc,...ck->...nk", x, vectors))
    change += einsum("...nc,...nk->...ck", x, einsum("...nc,...ck->...nk", dx, vectors))
    within = einsum("...ci,...ck->...ik", every, change)

    largest = values[..., :1, None]
    smallest_gap = 10 * jnp.finfo(values.dtype).eps * jnp.square(largest)
    mine, others = values[..., None, :count], values[..., :, None]
    rate = _inverse((mine - others) * (mine + others), smallest_gap)
    tangent = einsum("...ci,...ik->...ck", every, rate * within)
    if every.shape[-1] < x.shape[-1]:  # the directions in which x is zero
        outside = change - einsum("...ci,...ik->...ck", every, within)
        tangent += outside * _inverse(jnp.square(mine), smallest_gap)
    return vectors, tangent


def _svd(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Singular values `[..., n]` and right singular vectors, as rows, `[..., n, C]`.

    On CPU one matrix after the other: there a batch of them waits for threads of the pool while it
    occupies one, so that several batches at a time can wait for one another forever (jaxlib 0.10).
    """

    def batched(x: jax.Array) -> tuple[jax.Array, ...]:
        _, values, rows = jnp.linalg.svd(x, full_matrices=False)
        return values, rows

    def one_by_one(x: jax.Array) -> tuple[jax.Array, ...]:
        flat = jax.lax.map(batched, x.reshape(-1, *x.shape[-2:]))
        return tuple(part.reshape(*x.shape[:-2], *part.shape[1:]) for part in flat)

    return jax.lax.platform_dependent(x, cpu=one_by_one, default=batched)


def _inverse(x: jax.Array, smallest: jax.Array) -> jax.Array:
    """`1 / x`, and 0 where x is not larger than `smallest`."""
    keep = jnp.abs(x) > smallest
    return jnp.where(keep, 1 / jnp.where(keep, x, 1.0), 0.0)
