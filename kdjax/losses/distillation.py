"""Losses over logits: cross entropy, temperature KD, mutual learning, distillation from means."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from kdjax.losses.classes import expectation, kl_divergence, labels_of, same_logits
from kdjax.losses.smoothing import smoothed
from kdjax.numerics import at_least_float32, total


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Softmax cross entropy, `-log softmax(logits)[label]`.

    Source: PyTorch's `CrossEntropyLoss`, which all official scripts use; its mean is the mean of
    the values returned here.

    Args:
      logits: `[..., N]` unnormalized scores, `[B, N]` for images, `[B, H, W, N]` for pixels. A
        class of logit -inf is excluded: it has probability 0.
      labels: `[...]` integer classes in `[0, N)`, or `[..., N]` target probabilities.

    Returns:
      `[...]`, in nats: infinite where a target's class is excluded.

    Raises:
      ValueError: labels of another shape, such as `[B, 1]`, or of `[...]` that are not integers.

    >>> logits = jnp.log(jnp.array([[0.5, 0.25, 0.25]]))
    >>> print(cross_entropy(logits, jnp.array([0])))
    [0.693...]
    >>> print(cross_entropy(logits, jnp.array([[0.0, 0.5, 0.5]])))
    [1.386...]
    """
    log_probs = jax.nn.log_softmax(at_least_float32(logits), axis=-1)
    labels = jnp.asarray(labels)
    if labels.shape == log_probs.shape:
        return -expectation(labels, log_probs)
    labels = labels_of(log_probs, labels)
    return smoothed(-jnp.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0], log_probs)


def kd(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    *,
    temperature: float,
    stop_teacher: bool = True,
) -> jax.Array:
    """Knowledge distillation: `T^2 KL(softmax(teacher / T) || softmax(student / T))`.

    The factor T squared keeps the gradient's scale independent of the temperature.

    Source: Hinton et al., 2015, arXiv 1503.02531, section 2; checked against `DistillKL` of the
    HSAKD and MCL repositories, whose 'batchmean' is the mean of the values returned here.

    Args:
      student_logits: `[..., N]` logits, not divided by the temperature.
      teacher_logits: `[..., N]` logits, likewise. A class whose logit is -inf has probability 0 and
        counts 0.
      temperature: T > 0.
      stop_teacher: whether the teacher is a constant. False lets gradients reach it too.

    Returns:
      `[...]`, in nats: summed over classes, T squared included. Infinite where the student
      excludes a class, by -inf, that the teacher does not.

    Raises:
      ValueError: numbers of classes, or other axes, that differ.

    >>> teacher = jnp.array([[2.0, 0.0]])
    >>> print(kd(jnp.array([[0.0, 0.0]]), teacher, temperature=2.0))
    [0.443...]
    >>> print(kd(teacher, teacher, temperature=2.0))
    [0.]
    """
    same_logits(student_logits, teacher_logits)
    if stop_teacher:
        teacher_logits = jax.lax.stop_gradient(teacher_logits)
    student = jax.nn.log_softmax(at_least_float32(student_logits) / temperature, axis=-1)
    teacher = jax.nn.log_softmax(at_least_float32(teacher_logits) / temperature, axis=-1)
    return temperature**2 * kl_divergence(teacher, student)


def mutual_learning(logits: Sequence[jax.Array], *, temperature: float) -> jax.Array:
    """Deep mutual learning (DML): every network is distilled from every other one.

    `sum_m 1 / (M - 1) sum_{n != m} T^2 KL(sg p_n || p_m)`

    Source: Zhang et al., CVPR 2018, arXiv 1706.00384, equation 8, with a temperature; checked
    against `main_cifar_dml.py` of the MCL-OKD repository.

    Args:
      logits: M >= 2 arrays `[..., N]`.
      temperature: T > 0.

    Returns:
      `[...]`, in nats: summed over the M networks, T squared included.

    Raises:
      ValueError: fewer than two networks, or numbers of classes that differ.

    >>> logits = [jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 0.0]])]
    >>> print(mutual_learning(logits, temperature=2.0))
    [0.924...]
    """
    count = len(logits)
    if count < 2:
        raise ValueError(f"mutual learning needs at least two networks, got {count}")
    terms = [
        kd(logits[m], logits[n], temperature=temperature)
        for m in range(count)
        for n in range(count)
        if n != m
    ]
    return total(terms) / (count - 1)


def distill_from_mean(
    logits: Sequence[jax.Array],
    *,
    temperature: float,
    students: Sequence[int] | None = None,
    stop_teacher: bool = True,
) -> jax.Array:
    """Distillation of a cohort's members from the mean of the cohort's logits.

    `sum_{m in students} T^2 KL(softmax(mean / T) || softmax(logits_m / T))`

    Source: the logit distillation of MCL, Yang et al., AAAI 2022, arXiv 2104.12565; checked against
    the two forms of the MCL repository: `main_cifar.py` detaches the mean and has both networks
    learn when there are two, otherwise only the last; `main_imagenet.py` has only the last one
    learn and lets gradients reach the mean (`stop_teacher=False`).

    Args:
      logits: M arrays `[..., N]`.
      temperature: T > 0.
      students: the positions in `logits` of the networks that learn; all by default.
      stop_teacher: whether the mean is a constant.

    Returns:
      `[...]`, in nats: summed over the students, T squared included.

    Raises:
      ValueError: no networks, no students, or numbers of classes that differ.
    """
    logits = list(logits)
    students = list(range(len(logits)) if students is None else students)
    if not logits or not students:
        raise ValueError(f"nothing to distill: {len(logits)} networks, students {students}")
    for member in logits[1:]:
        same_logits(member, logits[0])
    mean = total(at_least_float32(member) for member in logits) / len(logits)
    terms = [
        kd(logits[m], mean, temperature=temperature, stop_teacher=stop_teacher) for m in students
    ]
    return total(terms)
