"""Losses over logits: cross entropy, temperature KD, mutual learning, distillation from means."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from kdjax.losses.arrays import at_least_float32


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Softmax cross entropy.

    Args:
      logits: `[B, N]` unnormalized scores.
      labels: `[B]` integer classes in `[0, N)`, or `[B, N]` target probabilities.

    Returns:
      `[B]`, in nats.
    """
    log_probs = jax.nn.log_softmax(at_least_float32(logits), axis=-1)
    if labels.ndim == logits.ndim:
        return -jnp.sum(labels * log_probs, axis=-1)
    return -jnp.take_along_axis(log_probs, labels[:, None], axis=-1)[:, 0]


def kd(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    *,
    temperature: float,
    stop_teacher: bool = True,
) -> jax.Array:
    """Knowledge distillation: `T^2 KL(softmax(teacher / T) || softmax(student / T))`.

    The factor T squared keeps the gradient's scale independent of the temperature (Hinton et al.,
    2015, arXiv 1503.02531, section 2). Checked against `DistillKL` of the HSAKD and MCL
    repositories, whose 'batchmean' is the mean of the values returned here.

    Args:
      student_logits: `[B, N]` logits, not divided by the temperature.
      teacher_logits: `[B, N]` logits, likewise.
      temperature: T > 0.
      stop_teacher: whether the teacher is a constant. False lets gradients reach it too.

    Returns:
      `[B]`: summed over classes, T squared included.
    """
    if stop_teacher:
        teacher_logits = jax.lax.stop_gradient(teacher_logits)
    student = jax.nn.log_softmax(at_least_float32(student_logits) / temperature, axis=-1)
    teacher = jax.nn.log_softmax(at_least_float32(teacher_logits) / temperature, axis=-1)
    return temperature**2 * jnp.sum(jnp.exp(teacher) * (teacher - student), axis=-1)


def mutual_learning(logits: Sequence[jax.Array], *, temperature: float) -> jax.Array:
    """Deep mutual learning (DML): every network is distilled from every other one.

    `sum_m 1 / (M - 1) sum_{n != m} T^2 KL(sg p_n || p_m)` (Zhang et al., 2018, arXiv 1706.00384,
    equation 8, with a temperature). Checked against `main_cifar_dml.py` of the MCL-OKD repository.

    Args:
      logits: M >= 2 arrays `[B, N]`.
      temperature: T > 0.

    Returns:
      `[B]`: summed over the M networks.
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
    return sum(terms) / (count - 1)


def distill_from_mean(
    logits: Sequence[jax.Array],
    *,
    temperature: float,
    students: Sequence[int] | None = None,
    stop_teacher: bool = True,
) -> jax.Array:
    """Distillation of a cohort's members from the mean of the cohort's logits.

    `sum_{m in students} T^2 KL(softmax(mean / T) || softmax(logits_m / T))`. The two official forms
    (MCL repository): `main_cifar.py` detaches the mean and has both networks learn when there are
    two, otherwise only the last; `main_imagenet.py` has only the last one learn and lets gradients
    reach the mean (`stop_teacher=False`).

    Args:
      logits: M arrays `[B, N]`.
      temperature: T > 0.
      students: the positions in `logits` of the networks that learn; all by default.
      stop_teacher: whether the mean is a constant.

    Returns:
      `[B]`: summed over the students.
    """
    mean = sum(at_least_float32(each) for each in logits) / len(logits)
    students = range(len(logits)) if students is None else students
    terms = [
        kd(logits[m], mean, temperature=temperature, stop_teacher=stop_teacher) for m in students
    ]
    return sum(terms)
