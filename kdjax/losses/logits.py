"""Distillation of logits beyond KD: DKD, DIST and the standardization of logits."""

import jax
import jax.numpy as jnp

from kdjax.losses.arrays import at_least_float32


def dkd(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    labels: jax.Array,
    *,
    alpha: float,
    beta: float,
    temperature: float,
) -> jax.Array:
    """Decoupled knowledge distillation: what the teacher says of the label, and of all the rest.

    With p = softmax(logits / T), t an image's label, b = (p_t, 1 - p_t) and q the distribution over
    the other classes, `q_i = p_i / (1 - p_t)`:

        T^2 (alpha KL(b^T || b^S) + beta KL(q^T || q^S))

    `kd` is the case alpha = 1, beta = 1 - p^T_t. Source: Zhao et al., CVPR 2022, arXiv 2203.08679,
    equation 7; checked against `mdistiller/distillers/DKD.py` of the mdistiller repository, which
    takes q by lowering the label's logit by 1000 (here it is left out).

    Args:
      student_logits: `[B, N]` logits, N >= 2, not divided by the temperature.
      teacher_logits: `[B, N]` logits, likewise; a constant.
      labels: `[B]` integer classes.
      alpha: weight of the label's part. Paper: 1.
      beta: weight of the other classes' part. Paper: 8 for most pairs on CIFAR-100.
      temperature: T > 0. Paper: 4.

    Returns:
      `[B]`, T squared included.
    """
    student = _decoupled(student_logits / temperature, labels)
    teacher = _decoupled(jax.lax.stop_gradient(teacher_logits) / temperature, labels)
    label, others = (
        jnp.sum(jnp.exp(t) * (t - s), axis=-1) for s, t in zip(student, teacher, strict=True)
    )
    return temperature**2 * (alpha * label + beta * others)


def _decoupled(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`[B, 2]` log (p_t, 1 - p_t), and `[B, N - 1]` log q, the classes after the label's first."""
    logits = at_least_float32(logits)
    count = logits.shape[-1]
    # Rotated so that the label comes first: the others are then a plain slice.
    order = (labels[:, None] + jnp.arange(count)) % count
    logits = jnp.take_along_axis(logits, order, axis=-1)
    others = jax.nn.logsumexp(logits[:, 1:], axis=-1)
    binary = jax.nn.log_softmax(jnp.stack([logits[:, 0], others], axis=-1), axis=-1)
    return binary, logits[:, 1:] - others[:, None]


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
      student_logits: `[B, N]` logits, not divided by the temperature.
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
    """
    student = jax.nn.softmax(at_least_float32(student_logits) / temperature, axis=-1)
    teacher = jax.nn.softmax(at_least_float32(teacher_logits) / temperature, axis=-1)
    teacher = jax.lax.stop_gradient(teacher)

    def mean_over_images(x):
        mean = jnp.mean(x, axis=0)
        return mean if axis_name is None else jax.lax.pmean(mean, axis_name)

    rows = [each - jnp.mean(each, axis=-1, keepdims=True) for each in (student, teacher)]
    lengths = _length(jnp.sum(rows[0] ** 2, -1)) * _length(jnp.sum(rows[1] ** 2, -1))
    inter_class = 1 - jnp.sum(rows[0] * rows[1], axis=-1) / (lengths + epsilon)

    count = student.shape[0] * (1 if axis_name is None else jax.lax.axis_size(axis_name))
    columns = [each - mean_over_images(each) for each in (student, teacher)]
    squares = [count * mean_over_images(each**2) for each in columns]
    lengths = _length(squares[0]) * _length(squares[1])
    shares = jnp.mean(columns[0] * columns[1] / (lengths + epsilon), axis=-1)
    intra_class = 1 - count * shares
    return temperature**2 * (beta * inter_class + gamma * intra_class)


def _length(squares: jax.Array) -> jax.Array:
    """The square root, with a finite gradient where there is nothing under it."""
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)


def standardize(logits: jax.Array, *, unbiased: bool = False, epsilon: float = 1e-7) -> jax.Array:
    """Logits as z-scores: mean 0 and standard deviation 1 over the classes.

    Distillation from standardized logits, `kd(standardize(student), standardize(teacher),
    temperature=...)`, asks for the teacher's relations between classes, not for its range; so does
    `dkd` of them. Source: Sun et al., CVPR 2024, arXiv 2403.01427; checked against
    `normalize` in `mdistiller/distillers/KD.py` of the logit-standardization-KD repository, which
    divides by PyTorch's deviation, the unbiased one.

    Args:
      logits: `[..., N]`, N >= 2.
      unbiased: whether the variance is divided by N - 1, as the official code does, and not by N.
      epsilon: added to the deviation.

    Returns:
      `[..., N]`, float32 at least; zeros where all logits are equal.
    """
    logits = at_least_float32(logits)
    centered = logits - jnp.mean(logits, axis=-1, keepdims=True)
    count = logits.shape[-1] - int(unbiased)
    deviation = _length(jnp.sum(centered**2, axis=-1, keepdims=True) / count)
    return centered / (deviation + epsilon)
