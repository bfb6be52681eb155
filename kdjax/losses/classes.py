"""Labels, logits and probabilities of classes: the checks and sums that all losses share.

A class whose logit is -inf is excluded: its probability is 0, and so is its part of every sum.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kdjax.numerics import at_least_float32


def class_labels(labels: jax.Array, shape: tuple[int, ...], *, of: str = "logits") -> jax.Array:
    """Integer labels of a given shape, int32 at least.

    Args:
      labels: integers of `shape`.
      shape: one label each: the shape of the logits without their last axis.
      of: the name of the array that has this shape, for the message.

    Raises:
      ValueError: labels of another shape, such as `[B, 1]` for logits `[B, N]`, or not integers.
    """
    labels = jnp.asarray(labels)
    if labels.shape != tuple(shape):
        squeeze = labels.shape[-1:] == (1,) and labels.shape[:-1] == tuple(shape)
        advice = "; use labels.squeeze(-1)" if squeeze else ""
        raise ValueError(
            f"labels of shape {labels.shape} do not fit the {of}: one integer class per row, "
            f"of shape {tuple(shape)}, is needed{advice}"
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels must be integer classes, got {labels.dtype} of {labels.shape}")
    # Small integers would overflow in products such as those of joint labels.
    return labels.astype(jnp.promote_types(labels.dtype, jnp.int32))


def labels_of(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The integer labels `[...]` of logits `[..., N]`.

    Raises:
      ValueError: logits without an axis of classes, or as `class_labels`.
    """
    if jnp.ndim(logits) < 1:
        raise ValueError("logits need an axis of classes, the last one; got a number")
    return class_labels(labels, jnp.shape(logits)[:-1], of=f"logits {jnp.shape(logits)}")


def same_logits(student: jax.Array, teacher: jax.Array) -> None:
    """Checks that a student's and a teacher's logits have one shape, `[..., N]`.

    Raises:
      ValueError: their shapes differ.
    """
    students, teachers = jnp.shape(student), jnp.shape(teacher)
    if students == teachers and students:
        return
    if students and teachers and students[-1] != teachers[-1]:
        raise ValueError(
            f"the student has {students[-1]} classes, the teacher {teachers[-1]}: their logits, "
            f"of shapes {students} and {teachers}, cannot be compared"
        )
    raise ValueError(f"logits of student and teacher differ in shape: {students} and {teachers}")


def expectation(probs: jax.Array, values: jax.Array) -> jax.Array:
    """`sum_n p_n v_n` over the last axis, `[..., N] -> [...]`, where `0 * inf` counts 0.

    Its gradient with respect to a value whose probability is 0 is 0, too.
    """
    counts = probs != 0
    return jnp.sum(jnp.where(counts, probs * jnp.where(counts, values, 0.0), 0.0), axis=-1)


def kl_divergence(log_target: jax.Array, log_probs: jax.Array) -> jax.Array:
    """`KL(target || probs)` in nats of log-probabilities, `[..., N] -> [...]`.

    Classes of target probability 0 count 0; where only `probs` excludes a class, the divergence is
    infinite.
    """
    target = jnp.exp(log_target)
    counts = target != 0
    # Values that are not counted are replaced before the subtraction: -inf - -inf is not a number.
    difference = jnp.where(counts, log_target, 0.0) - jnp.where(counts, log_probs, 0.0)
    return jnp.sum(target * difference, axis=-1)


def included(logits: jax.Array) -> jax.Array:
    """`[..., N]` bool: the classes that are not excluded by a logit of -inf."""
    return logits > -jnp.inf


def one_hot(labels: jax.Array, logits: jax.Array) -> jax.Array:
    """`[..., N]` in the type of the loss of these logits; raises as `class_labels`."""
    dtype = at_least_float32(logits).dtype
    return jax.nn.one_hot(labels_of(logits, labels), jnp.shape(logits)[-1], dtype=dtype)
