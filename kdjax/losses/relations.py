"""Losses that compare how the images of a batch relate to one another: SP, CC and PKT.

All take `axis_name`, the name of the mapped device axis. With it an image is related to the images
of all devices, so that the mean over devices is the loss of one device with the global batch, and
gradients reach the gathered features. None means one device.
"""

import jax
import jax.numpy as jnp

from kdjax.losses.feature_maps import Maps, by_layer, same_shape
from kdjax.losses.global_batch import first_number, rows_and_columns
from kdjax.numerics import flattened, total, unit


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
        students, teachers = (unit(_products(*rows_and_columns(x, axis_name))) for x in pair)
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
    rows, columns = rows_and_columns(jnp.abs(student - teacher), axis_name)
    count = len(columns)
    number = first_number(rows, axis_name) + jnp.arange(len(rows))
    before = jnp.where(number[:, None] > 0, columns[number - 1], 0.0)
    after = jnp.where(number[:, None] < count - 1, columns[(number + 1) % max(count, 1)], 0.0)
    share = count / (2 * max(count - 1, 1))
    return share * jnp.sum(rows * (before + after), axis=1)


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
        similarities = (_products(*rows_and_columns(directions, axis_name)) + 1) / 2
        probabilities.append(similarities / similarities.sum(1, keepdims=True))
    students, teachers = probabilities
    return (teachers * jnp.log((teachers + epsilon) / (students + epsilon))).mean(1)


def _products(rows: jax.Array, columns: jax.Array) -> jax.Array:
    return jnp.matmul(rows, columns.T, precision=jax.lax.Precision.HIGHEST)
