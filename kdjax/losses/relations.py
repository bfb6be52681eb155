"""Losses that compare how the images of a batch relate to one another: SP, CC, RKD and PKT.

All take `axis_name`, the name of the mapped device axis. With it an image is related to the images
of all devices, so that the mean over devices is the loss of one device with the global batch, and
gradients reach the gathered features. None means one device.
"""

import jax
import jax.numpy as jnp

from kdjax.losses.feature_maps import Maps, by_layer, same_shape
from kdjax.numerics import SHORTEST, at_least_float32, flattened, total, unit


def similarity_preserving(
    student: Maps,
    teacher: Maps,
    *,
    stop_teacher: bool = True,
    axis_name: str | None = None,
) -> jax.Array:
    """Similarity-preserving distillation (SP): `|G_s - G_t|^2 / B^2`, summed over layers.

    Row i of G are the inner products of image i's flattened map and those of all B images, the row
    divided by its length.

    Source: Tung and Mori, ICCV 2019, arXiv 1907.09682; checked against
    `distiller_zoo/SP.py` of RepDistiller, `Similarity`.

    Args:
      student: `[B, ...]` maps by position or name, or one map.
      teacher: likewise; shapes may differ from the student's.
      stop_teacher: whether the teacher is a constant.
      axis_name: see the module.

    Returns:
      `[B]`: for every image its row's squared difference over B, summed over layers.

    Raises:
      ValueError: layers that do not pair up, or batches of different sizes.

    >>> maps = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> print(similarity_preserving(maps, jnp.ones((3, 5))))
    [0.122... 0.122... 0.281...]
    """
    terms = []
    for pair in by_layer(student, teacher, stop_teacher=stop_teacher):
        students, teachers = (unit(_products(*_rows_and_columns(x, axis_name))) for x in pair)
        terms.append(jnp.square(students - teachers).mean(1))
    return total(terms)


def correlation_congruence(
    student: jax.Array,
    teacher: jax.Array,
    *,
    stop_teacher: bool = True,
    axis_name: str | None = None,
) -> jax.Array:
    """Correlation congruence (CC): `mean_b <|s_b - t_b|, |s_{b+1} - t_{b+1}|>` over neighbors.

    The form of the paper's authors' code, which relates an image to the next one in the batch
    only: it depends on the batch's order. The paper compares kernel matrices of the whole batch.

    Source: Peng et al., ICCV 2019, arXiv 1904.01802; checked against `distiller_zoo/CC.py` of
    RepDistiller, `Correlation`.

    Args:
      student: `[B, D]` embeddings.
      teacher: `[B, D]` embeddings.
      stop_teacher: whether the teacher is a constant. False where its embedding is learned, as in
        RepDistiller.
      axis_name: see the module.

    Returns:
      `[B]`: a pair's term is shared by its two images, such that the mean is the mean over B - 1
      pairs. 0 for a single image.

    Raises:
      ValueError: shapes differ.
    """
    [(student, teacher)] = by_layer(student, teacher, stop_teacher=stop_teacher)
    same_shape(student, teacher)
    rows, columns = _rows_and_columns(jnp.abs(student - teacher), axis_name)
    count = len(columns)
    number = _first_number(rows, axis_name) + jnp.arange(len(rows))
    before = jnp.where(number[:, None] > 0, columns[number - 1], 0.0)
    after = jnp.where(number[:, None] < count - 1, columns[(number + 1) % max(count, 1)], 0.0)
    share = count / (2 * max(count - 1, 1))
    return share * jnp.sum(rows * (before + after), axis=1)


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
      axis_name: see the module.

    Returns:
      `[B]`, without a unit: both terms compare scale-free relations.

    Raises:
      ValueError: batches of different sizes.

    >>> student = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> print(rkd(student, 2.0 * student) < 1e-6)  # relations do not depend on the scale
    [ True  True  True]
    """
    distance = rkd_distance(student, teacher, axis_name=axis_name)
    angle = rkd_angle(student, teacher, axis_name=axis_name)
    return distance_weight * distance + angle_weight * angle


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
      axis_name: see the module.

    Returns:
      `[B]`: the mean over j.

    Raises:
      ValueError: batches of different sizes.
    """
    [pair] = by_layer(student, teacher, stop_teacher=True)
    students, teachers = (_distances(x, axis_name) for x in pair)
    return _huber(students - teachers).mean(1)


def rkd_angle(student: jax.Array, teacher: jax.Array, *, axis_name: str | None = None) -> jax.Array:
    """RKD-A: `mean_{i,j,k} huber(c_s[i, j, k] - c_t[i, j, k])` over all B^3 triples.

    `c[i, j, k]` is the cosine of the angle at image i between images j and k, 0 where j or k is i.
    The Huber loss has delta 1. The teacher is a constant. Needs memory for B^2 (B + D) numbers.

    Source: Park et al., CVPR 2019, arXiv 1904.05068; checked against
    `distiller_zoo/RKD.py` of RepDistiller, `RKDLoss`.

    Args:
      student: `[B, ...]`, flattened.
      teacher: `[B, ...]`, flattened; lengths may differ.
      axis_name: see the module.

    Returns:
      `[B]`: the mean over j and k.

    Raises:
      ValueError: batches of different sizes.
    """
    [pair] = by_layer(student, teacher, stop_teacher=True)
    students, teachers = (_cosines(x, axis_name) for x in pair)
    return _huber(students - teachers).mean((1, 2))


def pkt(
    student: jax.Array,
    teacher: jax.Array,
    *,
    epsilon: float = 1e-7,
    stop_teacher: bool = True,
    axis_name: str | None = None,
) -> jax.Array:
    """Probabilistic knowledge transfer (PKT): `mean_{i,j} t log((t + epsilon) / (s + epsilon))`.

    s and t `[B, B]` are the cosine similarities of the batch's images, brought to 0 .. 1 by
    `(cos + 1) / 2` and divided by their row's sum.

    Source: Passalis and Tefas, ECCV 2018, arXiv 1803.10837; checked against
    `distiller_zoo/PKT.py` of RepDistiller, `PKT`.

    Args:
      student: `[B, ...]`, flattened.
      teacher: `[B, ...]`, flattened; lengths may differ.
      epsilon: added to lengths and probabilities.
      stop_teacher: whether the teacher is a constant.
      axis_name: see the module.

    Returns:
      `[B]`, in nats: the mean over j.

    Raises:
      ValueError: batches of different sizes.
    """
    [pair] = by_layer(student, teacher, stop_teacher=stop_teacher)
    probabilities = []
    for x in pair:
        directions = unit(flattened(x), epsilon=epsilon)
        similarities = (_products(*_rows_and_columns(directions, axis_name)) + 1) / 2
        probabilities.append(similarities / similarities.sum(1, keepdims=True))
    students, teachers = probabilities
    return (teachers * jnp.log((teachers + epsilon) / (students + epsilon))).mean(1)


def _rows_and_columns(x: jax.Array, axis_name: str | None) -> tuple[jax.Array, jax.Array]:
    """This device's images `[B, D]`, and the images they are related to: those of all devices."""
    x = flattened(at_least_float32(x))
    return x, x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)


def _first_number(rows: jax.Array, axis_name: str | None) -> jax.Array | int:
    """The number in the global batch of this device's first image."""
    return 0 if axis_name is None else jax.lax.axis_index(axis_name) * len(rows)


def _products(rows: jax.Array, columns: jax.Array) -> jax.Array:
    return jnp.matmul(rows, columns.T, precision=jax.lax.Precision.HIGHEST)


def _differences(x: jax.Array, axis_name: str | None) -> jax.Array:
    """`[B, columns, D]`. Explicit, as inner products would lose small distances by rounding."""
    rows, columns = _rows_and_columns(x, axis_name)
    return columns[None, :, :] - rows[:, None, :]


def _distances(x: jax.Array, axis_name: str | None) -> jax.Array:
    """`[B, columns]` distances over the mean distance of two different images."""
    squares = jnp.sum(jnp.square(_differences(x, axis_name)), axis=-1)
    number = _first_number(squares, axis_name) + jnp.arange(squares.shape[0])
    itself = number[:, None] == jnp.arange(squares.shape[1])[None, :]
    # As in the official code, images that coincide are 1e-6 apart (and get no gradient from it).
    distances = jnp.where(itself, 0.0, jnp.sqrt(jnp.maximum(squares, SHORTEST)))
    sum_of_all = distances.sum()
    if axis_name is not None:
        sum_of_all = jax.lax.psum(sum_of_all, axis_name)
    count = squares.shape[1]
    # A single image has no distances.
    return distances / jnp.maximum(sum_of_all / max(count * (count - 1), 1), SHORTEST)


def _cosines(x: jax.Array, axis_name: str | None) -> jax.Array:
    directions = unit(_differences(x, axis_name))
    return jnp.einsum("ijd,ikd->ijk", directions, directions, precision=jax.lax.Precision.HIGHEST)


def _huber(x: jax.Array) -> jax.Array:
    size = jnp.abs(x)
    return jnp.where(size < 1, 0.5 * jnp.square(x), size - 0.5)
