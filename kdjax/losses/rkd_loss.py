"""Relational knowledge distillation (RKD): distances and angles between the images of a batch.

All functions take `axis_name`, as those of `kdjax.losses.relations` do.
"""

import jax
import jax.numpy as jnp

from kdjax.losses.feature_maps import by_layer
from kdjax.losses.global_batch import first_number, rows_and_columns
from kdjax.numerics import SHORTEST, unit


def rkd(
    student: jax.Array,
    teacher: jax.Array,
    *,
    distance_weight: float = 25.0,
    angle_weight: float = 50.0,
    axis_name: str | None = None,
) -> jax.Array:
    """Relational knowledge distillation (RKD): `w_D rkd_distance + w_A rkd_angle`.

    The teacher is a constant.

    Source: Park et al., CVPR 2019, arXiv 1904.05068, section 3.2; checked against
    `distiller_zoo/RKD.py` of RepDistiller, `RKDLoss`, whose weights are the defaults.

    Args:
      student: `[B, ...]` embeddings or maps, flattened.
      teacher: `[B, ...]`, flattened; lengths may differ from the student's.
      distance_weight: w_D.
      angle_weight: w_A.
      axis_name: see `kdjax.losses.relations`.

    Returns:
      `[B]`, without a unit: both terms compare scale-free relations.

    Raises:
      ValueError: batches of different sizes.

    >>> student = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> print(rkd(student, 2.0 * student) < 1e-6)  # relations do not depend on the scale
    [ True  True  True]
    """
    pair = _differences_of_both(student, teacher, axis_name)  # gathered once for both terms
    return distance_weight * _distance(*pair, axis_name) + angle_weight * _angle(*pair)


def rkd_distance(
    student: jax.Array, teacher: jax.Array, *, axis_name: str | None = None
) -> jax.Array:
    """RKD-D: `mean_{i,j} huber(d_s[i, j] - d_t[i, j])` over all ordered pairs, i = j included.

    d are Euclidean distances divided by the mean distance of two different images of the batch.
    The Huber loss has delta 1. The teacher is a constant.

    Source: Park et al., CVPR 2019, arXiv 1904.05068; checked against
    `distiller_zoo/RKD.py` of RepDistiller, `RKDLoss`.

    Args:
      student: `[B, ...]`, flattened.
      teacher: `[B, ...]`, flattened; lengths may differ.
      axis_name: see `kdjax.losses.relations`.

    Returns:
      `[B]`: the mean over j.

    Raises:
      ValueError: batches of different sizes.
    """
    return _distance(*_differences_of_both(student, teacher, axis_name), axis_name)


def rkd_angle(student: jax.Array, teacher: jax.Array, *, axis_name: str | None = None) -> jax.Array:
    """RKD-A: `mean_{i,j,k} huber(c_s[i, j, k] - c_t[i, j, k])` over all B^3 triples.

    `c[i, j, k]` is the cosine of the angle at image i between images j and k, 0 where j or k is i.
    The Huber loss has delta 1. The teacher is a constant. Needs memory for B^2 (B + D) numbers.

    Source: Park et al., CVPR 2019, arXiv 1904.05068; checked against
    `distiller_zoo/RKD.py` of RepDistiller, `RKDLoss`.

    Args:
      student: `[B, ...]`, flattened.
      teacher: `[B, ...]`, flattened; lengths may differ.
      axis_name: see `kdjax.losses.relations`.

    Returns:
      `[B]`: the mean over j and k.

    Raises:
      ValueError: batches of different sizes.
    """
    return _angle(*_differences_of_both(student, teacher, axis_name))


def _differences_of_both(
    student: jax.Array, teacher: jax.Array, axis_name: str | None
) -> tuple[jax.Array, jax.Array]:
    """`_differences` of the student, and of the teacher as a constant."""
    [(student, teacher)] = by_layer(student, teacher, stop_teacher=True)
    return _differences(student, axis_name), _differences(teacher, axis_name)


def _distance(student: jax.Array, teacher: jax.Array, axis_name: str | None) -> jax.Array:
    """`rkd_distance` of differences `[B, columns, D]`."""
    students, teachers = (_distances(x, axis_name) for x in (student, teacher))
    return _huber(students - teachers).mean(1)


def _angle(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """`rkd_angle` of differences `[B, columns, D]`."""
    return _huber(_cosines(student) - _cosines(teacher)).mean((1, 2))


def _differences(x: jax.Array, axis_name: str | None) -> jax.Array:
    """`[B, columns, D]`. Explicit, as inner products would lose small distances by rounding."""
    rows, columns = rows_and_columns(x, axis_name)
    return columns[None, :, :] - rows[:, None, :]


def _distances(differences: jax.Array, axis_name: str | None) -> jax.Array:
    """`[B, columns]` distances over the mean distance of two different images."""
    squares = jnp.sum(jnp.square(differences), axis=-1)
    number = first_number(squares, axis_name) + jnp.arange(squares.shape[0])
    itself = number[:, None] == jnp.arange(squares.shape[1])[None, :]
    # As in the official code, images that coincide are 1e-6 apart (and get no gradient from it).
    distances = jnp.where(itself, 0.0, jnp.sqrt(jnp.maximum(squares, SHORTEST)))
    sum_of_all = distances.sum()
    if axis_name is not None:
        sum_of_all = jax.lax.psum(sum_of_all, axis_name)
    count = squares.shape[1]
    # A single image has no distances.
    return distances / jnp.maximum(sum_of_all / max(count * (count - 1), 1), SHORTEST)


def _cosines(differences: jax.Array) -> jax.Array:
    directions = unit(differences)
    return jnp.einsum("ijd,ikd->ijk", directions, directions, precision=jax.lax.Precision.HIGHEST)


def _huber(x: jax.Array) -> jax.Array:
    size = jnp.abs(x)
    return jnp.where(size < 1, 0.5 * jnp.square(x), size - 0.5)
