"""Distillation of logits beyond KD: DKD, DIST and the standardization of logits."""

import jax
import jax.numpy as jnp

from kdjax.losses.classes import included, kl_divergence, labels_of, same_logits
from kdjax.numerics import at_least_float32, safe_sqrt


def dkd(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    labels: jax.Array,
    *,
    alpha: float,
    beta: float,
    temperature: float,
) -> jax.Array:
    """Decoupled knowledge distillation (DKD): target-class KD and non-target-class KD, weighed.

    With p = softmax(logits / T), t the target class, b = (p_t, 1 - p_t) and q the distribution over
    the other classes, `q_i = p_i / (1 - p_t)`:

        TCKD = KL(b^T || b^S)         target-class KD: how sure the teacher is of the target
        NCKD = KL(q^T || q^S)         non-target-class KD: what it makes of all other classes
        loss = T^2 (alpha TCKD + beta NCKD)

    `kd` is the case alpha = 1, beta = 1 - p^T_t.

    Source: Zhao et al., CVPR 2022, arXiv 2203.08679, equation 7; checked against
    `mdistiller/distillers/DKD.py` of the mdistiller repository, which takes q by lowering the
    target's logit by 1000 (here it is left out).

    Args:
      student_logits: `[..., N]` logits, N >= 2, not divided by the temperature.
      teacher_logits: `[..., N]` logits, likewise; a constant. Classes whose logit is -inf have
        probability 0 and count 0.
      labels: `[...]` integer classes.
      alpha: weight of TCKD. Paper: 1.
      beta: weight of NCKD. Paper: 8 for most pairs on CIFAR-100.
      temperature: T > 0. Paper: 4.

    Returns:
      `[...]`, in nats, T squared included.

    Raises:
      ValueError: numbers of classes that differ, fewer than two, or labels of another shape.

    >>> student, teacher = jnp.array([[1.0, 0.0, 0.0]]), jnp.array([[3.0, 1.0, 0.0]])
    >>> loss = dkd(student, teacher, jnp.array([0]), alpha=1.0, beta=8.0, temperature=4.0)
    >>> print(loss)
    [1.258...]
    """
    same_logits(student_logits, teacher_logits)
    labels = labels_of(student_logits, labels)
    if jnp.shape(student_logits)[-1] < 2:
        raise ValueError("DKD needs at least two classes: the target and another one")
    student = _decoupled(at_least_float32(student_logits) / temperature, labels)
    teacher = _decoupled(
        jax.lax.stop_gradient(at_least_float32(teacher_logits)) / temperature, labels
    )
    tckd, nckd = (kl_divergence(t, s) for s, t in zip(student, teacher, strict=True))
    return temperature**2 * (alpha * tckd + beta * nckd)


def _decoupled(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`[..., 2]` log (p_t, 1 - p_t), and `[..., N - 1]` log q, the classes after the target."""
    count = logits.shape[-1]
    # Rotated so that the target comes first: the others are then a plain slice.
    order = (labels[..., None] + jnp.arange(count)) % count
    logits = jnp.take_along_axis(logits, order, axis=-1)
    target, others = logits[..., 0], logits[..., 1:]
    # Where all others are excluded, q is all zero and the binary distribution is (1, 0).
    any_included = included(others).any(axis=-1)
    log_sum = jax.nn.logsumexp(jnp.where(any_included[..., None], others, 0.0), axis=-1)
    log_q = jnp.where(any_included[..., None], others - log_sum[..., None], -jnp.inf)
    log_sum_others = jnp.where(any_included, log_sum, -jnp.inf)
    binary = jax.nn.log_softmax(jnp.stack([target, log_sum_others], axis=-1), axis=-1)
    return binary, log_q


def dist(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    *,
    beta: float,
    gamma: float,
    temperature: float,
    axis_name: str | None = None,
    epsilon: float = 1e-8,
) -> jax.Array:
    """DIST: the student's predictions correlate with the teacher's, whatever their scale and shift.

    With p = softmax(logits / T) as a matrix `[B, N]` and d(u, v) = 1 - Pearson's correlation:

        T^2 (beta 1 / B sum_b d(p^S[b, :], p^T[b, :]) + gamma 1 / N sum_n d(p^S[:, n], p^T[:, n]))

    Rows compare an image's classes (inter-class), columns one class over the batch (intra-class).

    Source: Huang et al., NeurIPS 2022, arXiv 2205.10536, section 4; checked against
    `lib/models/losses/dist_kd.py` of the authors' image_classification_sota repository (whose first
    version has T = 1). Where all values of a row or column are equal, its d is 1.

    Args:
      student_logits: `[B, N]` logits, not divided by the temperature. A class whose logit is -inf
        has probability 0.
      teacher_logits: `[B, N]` logits, likewise; a constant.
      beta: weight of the inter-class relation. The authors' code, for ImageNet: 1; later users on
        CIFAR-100: 2.
      gamma: weight of the intra-class relation. The same numbers.
      temperature: T > 0. The authors' code, for ImageNet: 1; later users on CIFAR-100: 4.
      axis_name: name of the mapped device axis. With it, the columns of the intra-class relation
        run over the images of all devices. None means one device.
      epsilon: added to the product of two lengths, as in the official code.

    Returns:
      `[B]`, T squared included: an image's row, and its share of the columns' sums, so that the
      mean is the loss.

    Raises:
      ValueError: shapes that differ, or logits that are not `[B, N]`.

    >>> teacher = jnp.array([[2.0, 0.0, 1.0], [0.0, 1.0, 3.0]])
    >>> loss = dist(teacher + 1.0, teacher, beta=2.0, gamma=2.0, temperature=1.0)
    >>> print(jnp.abs(loss) < 1e-3)  # neither scale nor shift of the predictions matters
    [ True  True]
    """
    same_logits(student_logits, teacher_logits)
    if jnp.ndim(student_logits) != 2:
        raise ValueError(
            f"DIST relates the images of a batch: logits [B, N], not {jnp.shape(student_logits)}"
        )
    student = jax.nn.softmax(at_least_float32(student_logits) / temperature, axis=-1)
    teacher = jax.nn.softmax(at_least_float32(teacher_logits) / temperature, axis=-1)
    teacher = jax.lax.stop_gradient(teacher)

    rows = [x - jnp.mean(x, axis=-1, keepdims=True) for x in (student, teacher)]
    lengths = safe_sqrt(jnp.sum(rows[0] ** 2, -1)) * safe_sqrt(jnp.sum(rows[1] ** 2, -1))
    inter_class = 1 - jnp.sum(rows[0] * rows[1], axis=-1) / (lengths + epsilon)

    count = student.shape[0] * (1 if axis_name is None else jax.lax.axis_size(axis_name))
    both = jnp.stack([student, teacher])
    means, squares = _moments(both, axis_name)
    columns = both - means[:, None]
    lengths = safe_sqrt(count * squares[0]) * safe_sqrt(count * squares[1])
    shares = jnp.mean(columns[0] * columns[1] / (lengths + epsilon), axis=-1)
    intra_class = 1 - count * shares
    return temperature**2 * (beta * inter_class + gamma * intra_class)


def _moments(x: jax.Array, axis_name: str | None) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance `[2, N]` over the images of `x` `[2, B, N]`, and over devices.

    Source: Chan, Golub and LeVeque 1983, equations 2.1, for equal counts.
    """
    mean = x.mean(1)
    variance = jnp.square(x - mean[:, None]).mean(1)
    if axis_name is None:
        return mean, variance
    means, variances = jax.lax.all_gather(jnp.stack([mean, variance]), axis_name, axis=1)
    mean = means.mean(0)
    return mean, variances.mean(0) + jnp.square(means - mean).mean(0)


def standardize(logits: jax.Array, *, unbiased: bool = False, epsilon: float = 1e-7) -> jax.Array:
    """Logits as z-scores: mean 0 and standard deviation 1 over the classes.

    Distillation from standardized logits, `kd(standardize(student), standardize(teacher),
    temperature=...)`, asks for the teacher's relations between classes, not for its range; so does
    `dkd` of them.

    Source: Sun et al., CVPR 2024, arXiv 2403.01427; checked against `normalize` in
    `mdistiller/distillers/KD.py` of the logit-standardization-KD repository, which divides by
    PyTorch's deviation, the unbiased one.

    Args:
      logits: `[..., N]`, N >= 2. Classes whose logit is -inf are left out and stay so.
      unbiased: whether the variance is divided by N - 1, as the official code does, and not by N.
      epsilon: added to the deviation.

    Returns:
      `[..., N]`, float32 at least; zeros where all logits are equal.
    """
    logits = at_least_float32(logits)
    counted = included(logits)
    finite = jnp.where(counted, logits, 0.0)
    count = jnp.sum(counted, axis=-1, keepdims=True)
    mean = jnp.sum(finite, axis=-1, keepdims=True) / jnp.maximum(count, 1)
    centered = jnp.where(counted, finite - mean, 0.0)
    squares = jnp.sum(centered**2, axis=-1, keepdims=True)
    deviation = safe_sqrt(squares / jnp.maximum(count - int(unbiased), 1))
    return jnp.where(counted, centered / (deviation + epsilon), -jnp.inf)
