"""HSAKD and HSSAKD: knowledge of classes and of joint labels (class x transformation).

Every image comes as M views next to each other: row `M * b + j` of `[B * M, ...]` is view j of
image b, and view 0 is the image itself. A network has class logits, and joint logits from each of
its auxiliary heads; the joint label of view j of class y is `M * y + j`. M follows from the shapes.

Sources: Yang et al., IJCAI 2021, "Hierarchical Self-supervised Augmented Knowledge Distillation",
arXiv 2107.13715 (HSAKD), and TNNLS 2022, arXiv 2109.03075 (HSSAKD); checked against
`train_teacher_cifar.py`, `train_student_cifar.py` and `train_online_kd_cifar.py` of the HSAKD
repository. With p a network's class distribution, q_l that of its head l, views x_j of x = x_0:

    cross_entropy        CE(p(x), y)                                the image itself, no other view
    joint_cross_entropy  1 / M sum_j sum_l CE(q_l(x_j), M y + j)
    kl                   1 / M sum_j T^2 KL(p^T(x_j) || p^S(x_j))
    joint_kl             1 / M sum_j sum_l T^2 KL(q^T_l(x_j) || q^S_l(x_j))

The temperature T is in the last two only. Each loss is the plain sum of its terms.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdjax.losses.classes import class_labels
from kdjax.losses.distillation import cross_entropy, kd
from kdjax.numerics import at_least_float32, total


class HssakdTeacher(NamedTuple):
    """The terms of a teacher's loss, each `[B]`."""

    cross_entropy: jax.Array
    joint_cross_entropy: jax.Array


class HssakdStudent(NamedTuple):
    """The terms of a student's loss, each `[B]`."""

    cross_entropy: jax.Array
    kl: jax.Array
    joint_kl: jax.Array


class HssakdOnline(NamedTuple):
    """The terms of the loss of networks that teach each other, each `[B]`: summed over networks."""

    cross_entropy: jax.Array
    joint_cross_entropy: jax.Array
    kl: jax.Array
    joint_kl: jax.Array


def joint_labels(labels: jax.Array, count: int) -> jax.Array:
    """Labels of all views: `count * class + transformation`.

    Source: Yang et al., IJCAI 2021, arXiv 2107.13715, section 3; as `train_teacher_cifar.py` of the
    HSAKD repository.

    Args:
      labels: `[B]` integer classes.
      count: M, the number of transformations.

    Returns:
      `[B * M]` integers in `[0, N * M)`; row `M * b + j` belongs to view j of image b.

    Raises:
      ValueError: labels that are not integers of shape `[B]`.
    """
    labels = class_labels(labels, jnp.shape(labels)[:1], of="images")
    return (count * labels[:, None] + jnp.arange(count)).reshape(-1)


def class_scores(joint_logits: jax.Array, num_classes: int) -> jax.Array:
    """Class scores of joint logits: their sum over the transformations.

    Source: Yang et al., IJCAI 2021, arXiv 2107.13715; `train_teacher_cifar.py` of the HSAKD
    repository, which evaluates heads so.

    Args:
      joint_logits: `[..., N * M]`.
      num_classes: N.

    Returns:
      `[..., N]`, float32 at least.

    Raises:
      ValueError: the number of joint labels is no multiple of N.
    """
    joint = joint_logits.shape[-1]
    if joint % num_classes:
        raise ValueError(f"{joint} joint labels are no multiple of {num_classes} classes")
    return at_least_float32(joint_logits).reshape(*joint_logits.shape[:-1], num_classes, -1).sum(-1)


def hssakd_teacher(logits: jax.Array, head_logits: Any, labels: jax.Array) -> HssakdTeacher:
    """The loss of a teacher: class labels for its classifier, joint labels for its heads.

    Source: Yang et al., IJCAI 2021, arXiv 2107.13715, and TNNLS 2022, arXiv 2109.03075, by the
    equations of this module; checked against `train_teacher_cifar.py` of the HSAKD repository.

    Args:
      logits: `[B * M, N]` class logits.
      head_logits: pytree of `[B * M, N * M]` joint logits, one array per head.
      labels: `[B]` integer classes.

    Returns:
      `cross_entropy` and `joint_cross_entropy`, `[B]` each, in nats.

    Raises:
      ValueError: shapes that do not fit together.
    """
    count = _count_views(logits, head_logits, labels)
    joint = joint_labels(labels, count)
    heads = total(cross_entropy(head, joint) for head in jax.tree.leaves(head_logits))
    return HssakdTeacher(
        cross_entropy(_first_views(logits, count), labels), _mean_over_views(heads, count)
    )


def hssakd_student(
    logits: jax.Array,
    head_logits: Any,
    labels: jax.Array,
    teacher_logits: jax.Array,
    teacher_head_logits: Any,
    *,
    temperature: float,
) -> HssakdStudent:
    """The loss of a student: class labels for its classifier, and the teacher for all its outputs.

    The student's heads learn from no label. Nothing sends a gradient to the teacher.

    Source: Yang et al., IJCAI 2021, arXiv 2107.13715, and TNNLS 2022, arXiv 2109.03075, by the
    equations of this module; checked against `train_student_cifar.py` of the HSAKD repository.

    Args:
      logits: `[B * M, N]` class logits of the student.
      head_logits: pytree of its `[B * M, N * M]` joint logits, one array per head.
      labels: `[B]` integer classes.
      teacher_logits: `[B * M, N]` class logits of the teacher.
      teacher_head_logits: pytree of its `[B * M, N * M]` joint logits, as `head_logits`; heads in
        the same place are compared.
      temperature: T > 0. Paper: 3.

    Returns:
      `cross_entropy`, `kl` and `joint_kl`, `[B]` each, in nats.

    Raises:
      ValueError: shapes or trees that do not fit together.
    """
    count = _count_views(logits, head_logits, labels)
    _count_views(teacher_logits, teacher_head_logits, labels)
    classes, joint = _divergences(
        (logits, head_logits), (teacher_logits, teacher_head_logits), temperature
    )
    return HssakdStudent(
        cross_entropy(_first_views(logits, count), labels),
        _mean_over_views(classes, count),
        _mean_over_views(joint, count),
    )


def hssakd_online(
    logits: Sequence[jax.Array],
    head_logits: Sequence[Any],
    labels: jax.Array,
    *,
    temperature: float,
) -> HssakdOnline:
    """Online HSSAKD: networks learn as teachers do and, in all their heads, from one another.

    The divergences are summed over all ordered pairs of networks; every teacher is a constant.

    Source: Yang et al., TNNLS 2022, arXiv 2109.03075, by the equations of this module, whose sums
    over more than two networks are inferred; checked against `train_online_kd_cifar.py` of the
    HSAKD repository.

    Args:
      logits: K >= 2 arrays `[B * M, N]` of class logits.
      head_logits: K pytrees of equal structure of `[B * M, N * M]` joint logits.
      labels: `[B]` integer classes.
      temperature: T > 0. Official code: 3.

    Returns:
      `cross_entropy`, `joint_cross_entropy`, `kl` and `joint_kl`, `[B]` each, in nats, summed over
      networks.

    Raises:
      ValueError: fewer than two networks, or shapes or trees that do not fit together.
    """
    networks = list(zip(logits, head_logits, strict=True))
    if len(networks) < 2:
        raise ValueError(f"online HSSAKD needs at least two networks, got {len(networks)}")
    supervised = [hssakd_teacher(*network, labels) for network in networks]
    pairs = [
        _divergences(student, teacher, temperature)
        for a, student in enumerate(networks)
        for b, teacher in enumerate(networks)
        if a != b
    ]
    count = logits[0].shape[0] // jnp.shape(labels)[0]
    return HssakdOnline(
        total(terms.cross_entropy for terms in supervised),
        total(terms.joint_cross_entropy for terms in supervised),
        _mean_over_views(total(classes for classes, _ in pairs), count),
        _mean_over_views(total(joint for _, joint in pairs), count),
    )


def _divergences(
    student: tuple[jax.Array, Any], teacher: tuple[jax.Array, Any], temperature: float
) -> tuple[jax.Array, jax.Array]:
    """`[B * M]` each: from the class distribution, and from those of the heads together."""
    divergence = functools.partial(kd, temperature=temperature)
    heads = jax.tree.leaves(jax.tree.map(divergence, student[1], teacher[1]))
    return divergence(student[0], teacher[0]), total(heads)


def _count_views(logits: jax.Array, head_logits: Any, labels: jax.Array) -> int:
    """M, if the shapes allow for one."""
    labels = class_labels(labels, jnp.shape(labels)[:1], of="images")
    if jnp.ndim(logits) != 2:
        raise ValueError(f"class logits must be of shape [B * M, N], got {jnp.shape(logits)}")
    (rows, num_classes), images = logits.shape, labels.shape[0]
    if not images or not rows or rows % images:
        raise ValueError(f"{rows} rows of logits are no multiple of {images} labels")
    count = rows // images
    heads = jax.tree.leaves(head_logits)
    if not heads:
        raise ValueError("there are no logits of heads")
    for head in heads:
        if head.shape != (rows, num_classes * count):
            raise ValueError(
                f"a head's logits are of shape {head.shape}; {count} views of {num_classes} "
                f"classes need {(rows, num_classes * count)}"
            )
    return count


def _first_views(rows: jax.Array, count: int) -> jax.Array:
    """`[B * M, ...] -> [B, ...]`: of the images themselves."""
    return rows[::count]


def _mean_over_views(rows: jax.Array, count: int) -> jax.Array:
    """`[B * M] -> [B]`."""
    return rows.reshape(-1, count).mean(axis=1)
