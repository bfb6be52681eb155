"""Losses that keep a classifier from being too sure, or too lax, without any teacher.

Each is that of its paper, unless `form='library'` says: that of Self-KD-Lib (winycg/Self-KD-Lib),
where it is another one.
"""

import jax
import jax.numpy as jnp

from kdjax.losses.arrays import at_least_float32
from kdjax.losses.distillation import cross_entropy, kd
from kdjax.losses.forms import is_paper


def label_smoothing(
    logits: jax.Array, labels: jax.Array, *, smoothing: float, form: str = "paper"
) -> jax.Array:
    """Cross entropy of smoothed labels.

    With N classes and e = smoothing, the target is `1 - e + e / N` for the true class and `e / N`
    for every other one.

    Source: Szegedy et al., CVPR 2016, arXiv 1512.00567, section 7; checked against
    methods/label_smooth.py of Self-KD-Lib.

    Args:
      logits: `[B, N]`.
      labels: `[B]` integer classes.
      smoothing: e, from 0 (plain cross entropy) to less than 1.
      form: 'paper', or 'library': the others share e among themselves, `1 - e` and `e / (N - 1)`.

    Returns:
      `[B]`, in nats.

    Raises:
      ValueError: unknown form.
    """
    classes = logits.shape[-1]
    if not is_paper(form):
        return cross_entropy(logits, _all_but(logits, labels, smoothing))
    one_hot = _one_hot(logits, labels)
    return cross_entropy(logits, (1 - smoothing) * one_hot + smoothing / classes)


def focal(logits: jax.Array, labels: jax.Array, *, gamma: float) -> jax.Array:
    """The focal loss, of a softmax: `-(1 - p)^gamma log p` with p of the true class.

    Source: Lin et al., ICCV 2017, arXiv 1708.02002, equation 4 (there for two classes, by a
    sigmoid); checked against methods/focal_loss.py of Self-KD-Lib.

    Args:
      logits: `[B, N]`.
      labels: `[B]` integer classes.
      gamma: at least 0, where it is cross entropy. Paper: 2.

    Returns:
      `[B]`, in nats.
    """
    negative = cross_entropy(logits, labels)
    miss = -jnp.expm1(-negative)  # 1 - p
    # The inner where keeps the infinite derivative of a power below 1 out of the gradient.
    weight = jnp.where(miss > 0, miss, 1.0) ** gamma
    return jnp.where(miss > 0, weight * negative, 0.0)


def virtual_logits(
    logits: jax.Array, embedding: jax.Array, kernel: jax.Array, labels: jax.Array
) -> jax.Array:
    """The logits and that of a virtual class, which lies in the direction of every embedding.

    The weights of the virtual class are as long as those of the true class and point at x, so that
    its logit is `|w_y| |x|`, which no logit of the true class without a bias exceeds.

    Source: Chen et al., NeurIPS 2018, arXiv 1811.12611, section 3; checked against models/resnet.py
    of Self-KD-Lib, and its network `CIFAR_ResNet18`.

    Args:
      logits: `[B, N]`. Those of the paper are without a bias, `embedding @ kernel`; Self-KD-Lib's
        keep the classifier's.
      embedding: `[B, D]`, x: what the classifier is given.
      kernel: `[D, N]` its weights, w.
      labels: `[B]` integer classes y.

    Returns:
      `[B, N + 1]`, the virtual class last. Gradients reach all three.
    """
    of_class = _length(at_least_float32(kernel), axis=0)[labels]
    virtual = of_class * _length(at_least_float32(embedding), axis=-1)
    return jnp.concatenate([at_least_float32(logits), virtual[:, None]], axis=-1)


def virtual_softmax(
    logits: jax.Array, embedding: jax.Array, kernel: jax.Array, labels: jax.Array
) -> jax.Array:
    """Cross entropy of the true class among all classes and the virtual one of `virtual_logits`.

    Args:
      logits: `[B, N]`, without a bias in the paper's form.
      embedding: `[B, D]`.
      kernel: `[D, N]`.
      labels: `[B]` integer classes.

    Returns:
      `[B]`, in nats.
    """
    return cross_entropy(virtual_logits(logits, embedding, kernel, labels), labels)


def confidence_penalty(logits: jax.Array, *, form: str = "paper") -> jax.Array:
    """The negative entropy of the predicted distribution, `sum p log p`.

    Source: Pereyra et al., ICLR workshops 2017, arXiv 1701.06548 (maximum entropy regularization):
    it is added to cross entropy with a weight; checked against main.py of Self-KD-Lib.

    Args:
      logits: `[B, N]`.
      form: 'paper', or 'library': the mean over the N classes instead of their sum.

    Returns:
      `[B]`, in nats, from `-log N` to 0; in the library's form over N.

    Raises:
      ValueError: unknown form.
    """
    log_probs = jax.nn.log_softmax(at_least_float32(logits), axis=-1)
    terms = jnp.exp(log_probs) * log_probs
    return terms.sum(axis=-1) if is_paper(form) else terms.mean(axis=-1)


def tf_kd(
    logits: jax.Array,
    labels: jax.Array,
    *,
    smoothing: float,
    temperature: float,
    form: str = "paper",
) -> jax.Array:
    """Teacher-free KD by a designed teacher (Tf-KD reg): `T^2 KL(p^d_T || p_T)`.

    The teacher gives p^d = `1 - smoothing` to the true class and `smoothing / (N - 1)` to each
    other one, and is never wrong. p^d_T is `softmax(p^d / T)`, and p_T is `softmax(logits / T)`.

    Source: Yuan et al., CVPR 2020, arXiv 1909.11723, equations 8 and 9, where the loss of a network
    is `(1 - alpha) CE + alpha KL(p^d_T || p_T)` and a = 1 - smoothing is 0.99. What it is that T
    softens, and the factor T squared, the equations do not say: the first is as in the authors'
    `loss_kd_regularization`, the second as in their other losses (my_loss_function.py of
    yuanli2333/Teacher-free-Knowledge-Distillation; `loss_kd_regularization` itself leaves the
    network at temperature 1). The library's form is checked against methods/tf_kd_reg.py of
    Self-KD-Lib.

    Args:
      logits: `[B, N]`.
      labels: `[B]` integer classes.
      smoothing: what the teacher leaves to the other classes.
      temperature: T > 0. Paper: 20 or more.
      form: 'paper', or 'library': `-sum p^d / T log p_T`, where the teacher is divided by T instead
        of softened by it, its entropy is left out and there is no T squared; it is added to plain
        cross entropy.

    Returns:
      `[B]`.

    Raises:
      ValueError: unknown form.
    """
    teacher = _all_but(logits, labels, smoothing)
    if is_paper(form):
        return kd(logits, teacher, temperature=temperature)
    return cross_entropy(at_least_float32(logits) / temperature, teacher) / temperature


def _one_hot(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """`[B, N]` in the type of the loss."""
    return jax.nn.one_hot(labels, logits.shape[-1], dtype=at_least_float32(logits).dtype)


def _all_but(logits: jax.Array, labels: jax.Array, smoothing: float) -> jax.Array:
    """`[B, N]` probabilities: all but `smoothing` for the true class, shared by the others."""
    one_hot = _one_hot(logits, labels)
    return (1 - smoothing) * one_hot + smoothing / (logits.shape[-1] - 1) * (1 - one_hot)


def _length(x: jax.Array, *, axis: int) -> jax.Array:
    """Euclidean lengths, with a gradient of 0 where they are 0."""
    squares = jnp.sum(jnp.square(x), axis=axis)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)
