"""Regularizers of a classifier's confidence: label smoothing, focal loss, virtual softmax, ...

Each is its paper's; `form='library'` is that of Self-KD-Lib (winycg/Self-KD-Lib), where it differs.
"""

import jax
import jax.numpy as jnp

from kdjax.losses.classes import expectation, included, labels_of, one_hot
from kdjax.losses.distillation import cross_entropy, kd
from kdjax.losses.forms import is_paper
from kdjax.numerics import at_least_float32, length


def label_smoothing(
    logits: jax.Array, labels: jax.Array, *, smoothing: float, form: str = "paper"
) -> jax.Array:
    """Cross entropy of smoothed labels.

    With N classes and e = smoothing, the target is `1 - e + e / N` for the true class and `e / N`
    for every other one.

    Source: Szegedy et al., CVPR 2016, arXiv 1512.00567, section 7; checked against
    methods/label_smooth.py of Self-KD-Lib.

    Args:
      logits: `[..., N]`. Classes whose logit is -inf are not among the N and have target 0.
      labels: `[...]` integer classes.
      smoothing: e, from 0 (plain cross entropy) to less than 1.
      form: 'paper', or 'library': the others share e among themselves, `1 - e` and `e / (N - 1)`.

    Returns:
      `[...]`, in nats.

    Raises:
      ValueError: unknown form, or labels of another shape.

    >>> logits = jnp.array([[2.0, 0.0, 0.0, 0.0]])
    >>> print(label_smoothing(logits, jnp.array([0]), smoothing=0.1))
    [0.490...]
    """
    if not is_paper(form):
        return cross_entropy(logits, _designed(logits, labels, smoothing))
    true = one_hot(labels, logits)
    uniform = included(logits) / _number(logits)
    return cross_entropy(logits, (1 - smoothing) * true + smoothing * uniform)


def focal(logits: jax.Array, labels: jax.Array, *, gamma: float) -> jax.Array:
    """The focal loss of a softmax: `-(1 - p)^gamma log p`, p the true class's probability.

    Source: Lin et al., ICCV 2017, arXiv 1708.02002, equation 4 (there for two classes, by a
    sigmoid); checked against methods/focal_loss.py of Self-KD-Lib.

    Args:
      logits: `[..., N]`.
      labels: `[...]` integer classes.
      gamma: at least 0, where it is cross entropy. Paper: 2.

    Returns:
      `[...]`, in nats.

    Raises:
      ValueError: labels of another shape.

    >>> logits = jnp.log(jnp.array([[0.5, 0.5], [0.9, 0.1]]))
    >>> print(focal(logits, jnp.array([0, 0]), gamma=2.0))
    [0.173... 0.001...]
    """
    negative = cross_entropy(logits, labels_of(logits, labels))
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

    Raises:
      ValueError: shapes that do not fit together.
    """
    shapes = jnp.shape(logits), jnp.shape(embedding), jnp.shape(kernel)
    fit = all(len(shape) == 2 for shape in shapes)
    if not fit or (shapes[0][0], *shapes[2]) != (*shapes[1], shapes[0][1]):
        raise ValueError(
            "virtual softmax needs logits [B, N], embedding [B, D] and kernel [D, N], got "
            f"{shapes[0]}, {shapes[1]} and {shapes[2]}"
        )
    of_class = length(at_least_float32(kernel), axis=0)[labels_of(logits, labels)]
    virtual = of_class * length(at_least_float32(embedding))
    return jnp.concatenate([at_least_float32(logits), virtual[:, None]], axis=-1)


def virtual_softmax(
    logits: jax.Array, embedding: jax.Array, kernel: jax.Array, labels: jax.Array
) -> jax.Array:
    """Cross entropy of the true class among all classes and the virtual one of `virtual_logits`.

    Source: Chen et al., NeurIPS 2018, arXiv 1811.12611, section 3; checked against
    `models/resnet.py` of Self-KD-Lib.

    Args:
      logits: `[B, N]`, without a bias in the paper's form.
      embedding: `[B, D]`, what the classifier is given.
      kernel: `[D, N]`, the classifier's weights.
      labels: `[B]` integer classes.

    Returns:
      `[B]`, in nats.

    Raises:
      ValueError: shapes that do not fit together.
    """
    return cross_entropy(virtual_logits(logits, embedding, kernel, labels), labels)


def confidence_penalty(logits: jax.Array, *, form: str = "paper") -> jax.Array:
    """The negative entropy of the predicted distribution, `sum p log p`.

    Source: Pereyra et al., ICLR workshops 2017, arXiv 1701.06548 (maximum entropy regularization):
    it is added to cross entropy with a weight; checked against main.py of Self-KD-Lib.

    Args:
      logits: `[..., N]`. A class whose logit is -inf has probability 0 and counts 0.
      form: 'paper', or 'library': the mean over the N classes instead of their sum.

    Returns:
      `[...]`, in nats, from `-log N` to 0; in the library's form over N.

    Raises:
      ValueError: unknown form.
    """
    log_probs = jax.nn.log_softmax(at_least_float32(logits), axis=-1)
    negative_entropy = expectation(jnp.exp(log_probs), log_probs)
    return negative_entropy if is_paper(form) else negative_entropy / log_probs.shape[-1]


def tf_kd(
    logits: jax.Array,
    labels: jax.Array,
    *,
    smoothing: float,
    temperature: float,
    form: str = "paper",
) -> jax.Array:
    """Teacher-free KD by a designed teacher (Tf-KD reg): `T^2 KL(p^d_T || p_T)`.

    The teacher gives p^d = `1 - smoothing` to the true class and `smoothing / (N - 1)` to every
    other one, and is never wrong. p^d_T is `softmax(p^d / T)`, and p_T is `softmax(logits / T)`.

    Source: Yuan et al., CVPR 2020, arXiv 1909.11723, equations 8 and 9, where the loss of a network
    is `(1 - alpha) CE + alpha KL(p^d_T || p_T)` and a = 1 - smoothing is 0.99. The equations
    leave open what T softens and whether there is a factor T squared: the first is as in the
    authors' `loss_kd_regularization`, the second as in their other losses (my_loss_function.py of
    yuanli2333/Teacher-free-Knowledge-Distillation; `loss_kd_regularization` itself leaves the
    network at temperature 1). The library's form is checked against methods/tf_kd_reg.py of
    Self-KD-Lib.

    Args:
      logits: `[..., N]`, N >= 2. Classes whose logit is -inf are not among the N.
      labels: `[...]` integer classes.
      smoothing: what the teacher leaves to the other classes.
      temperature: T > 0. Paper: 20 or more.
      form: 'paper', or 'library': `-sum p^d / T log p_T`, where the teacher is divided by T instead
        of softened by it, its entropy is left out and there is no T squared; it is added to plain
        cross entropy.

    Returns:
      `[...]`, in nats; in the paper's form T squared is included.

    Raises:
      ValueError: unknown form, or labels of another shape.
    """
    teacher = _designed(logits, labels, smoothing)
    if is_paper(form):
        # Probabilities are what T softens here; an excluded class is no class of the teacher's.
        teacher = jnp.where(included(logits), teacher, -jnp.inf)
        return kd(logits, teacher, temperature=temperature)
    return cross_entropy(at_least_float32(logits) / temperature, teacher) / temperature


def _number(logits: jax.Array) -> jax.Array:
    """`[..., 1]`: N, without the classes that are excluded."""
    return jnp.sum(included(logits), axis=-1, keepdims=True).astype(at_least_float32(logits).dtype)


def _designed(logits: jax.Array, labels: jax.Array, smoothing: float) -> jax.Array:
    """`[..., N]` probabilities: `1 - smoothing` for the true class, the rest for the others."""
    true = one_hot(labels, logits)
    others = included(logits) * (1 - true)
    return (1 - smoothing) * true + smoothing / jnp.maximum(_number(logits) - 1, 1) * others
