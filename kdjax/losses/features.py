"""Losses that compare feature maps position by position: FitNet, AT, VID, AB and FT."""

import math

import jax
import jax.numpy as jnp

from kdjax.losses.feature_maps import (
    Maps,
    aligned,
    by_layer,
    example_mean,
    in_order,
    match_resolution,
    same_shape,
)
from kdjax.numerics import flattened, total, unit


def hint(student: Maps, teacher: Maps, *, stop_teacher: bool = True) -> jax.Array:
    """FitNet's hint: `mean (student - teacher)^2` over positions and channels.

    Source: Romero et al., ICLR 2015, arXiv 1412.6550 (there half the sum); checked against
    `distiller_zoo/FitNet.py` of RepDistiller, `HintLoss`. The regressor that brings the student's
    map to the teacher's shape is not part of the loss.

    Args:
      student: `[B, ...]` the regressed map or vector; or several, summed.
      teacher: `[B, ...]` of the same shape; likewise.
      stop_teacher: whether the teacher is a constant.

    Returns:
      `[B]`, summed over layers.

    Raises:
      ValueError: shapes differ, or layers do not pair up.

    >>> print(hint(jnp.array([[1.0, 3.0]]), jnp.array([[1.0, 1.0]])))
    [2.]
    """
    terms = []
    for regressed, target in by_layer(student, teacher, stop_teacher=stop_teacher):
        same_shape(regressed, target)
        terms.append(example_mean(jnp.square(regressed - target)))
    return total(terms)


def attention_transfer(
    student: Maps, teacher: Maps, *, p: int = 2, stop_teacher: bool = True
) -> jax.Array:
    """Attention transfer (AT): `mean (Q_s - Q_t)^2` over positions, summed over layers.

    Q is the map of `mean_c |f_c|^p`, flattened and divided by its length. The larger map is pooled
    to the smaller one's resolution first.

    Source: Zagoruyko and Komodakis, ICLR 2017, arXiv 1612.03928; checked against
    `distiller_zoo/AT.py` of RepDistiller, `Attention`. The paper takes the difference's length; the
    code's mean of squares is what the published weight of 1000 belongs to.

    Args:
      student: maps `[B, H, W, C]` by position or name, or one map. Numbers of channels may differ.
      teacher: likewise.
      p: power of the activations, >= 1.
      stop_teacher: whether the teacher is a constant.

    Returns:
      `[B]`, summed over layers.

    Raises:
      ValueError: maps that are not `[B, H, W, C]`, or layers that do not pair up.

    >>> student = jnp.arange(4.0).reshape(1, 2, 2, 1)
    >>> print(attention_transfer(student, 3.0 * student) < 1e-6)  # maps are normalized
    [ True]
    >>> print(attention_transfer(student, jnp.ones((1, 4, 4, 8))))
    [0.146...]
    """
    terms = []
    for pair in by_layer(student, teacher, stop_teacher=stop_teacher):
        students, teachers = (_attention(jnp.abs(x), p) for x in match_resolution(*pair))
        terms.append(example_mean(jnp.square(students - teachers)))
    return total(terms)


def vid(
    mean: Maps,
    target: Maps,
    log_scale: Maps,
    *,
    epsilon: float = 1e-5,
    stop_teacher: bool = True,
) -> jax.Array:
    """Variational information distillation (VID): a Gaussian's negative log-likelihood.

    `mean (target - mean)^2 / (2 v) + log(v) / 2` over positions and channels, where
    `v = softplus(log_scale) + epsilon` is learned, one value per channel.

    Source: Ahn et al., CVPR 2019, arXiv 1904.05835; checked against `distiller_zoo/VID.py` of
    RepDistiller, `VIDLoss`. `mean` is what a regressor makes of the student's map. The official
    code pools before it: bring both maps to one resolution by `match_resolution`, then regress.

    Args:
      mean: `[B, H, W, C]` the prediction; or several by position or name.
      target: `[B, H, W, C]` the teacher's map; likewise.
      log_scale: `[C]` parameters, which start at `vid_log_scale()`; likewise.
      epsilon: least variance.
      stop_teacher: whether the target is a constant.

    Returns:
      `[B]`, in nats per position and channel, summed over layers. Negative where the prediction is
      good.

    Raises:
      ValueError: shapes differ, or layers do not pair up.
    """
    terms = []
    for predicted, actual, scale in aligned(mean, target, log_scale):
        same_shape(predicted, actual)
        if scale.shape not in ((), predicted.shape[-1:]):
            raise ValueError(f"log_scale {scale.shape} is not one value per channel")
        actual = jax.lax.stop_gradient(actual) if stop_teacher else actual
        variance = jax.nn.softplus(scale) + epsilon
        squares = jnp.square(predicted - actual)
        terms.append(0.5 * example_mean(squares / variance + jnp.log(variance)))
    return total(terms)


def vid_log_scale(*, variance: float = 5.0, epsilon: float = 1e-5) -> float:
    """The initial value of `log_scale` in `vid`, which makes all variances `variance`.

    Source: Ahn et al., CVPR 2019, arXiv 1904.05835; `distiller_zoo/VID.py` of RepDistiller,
    `VIDLoss`, whose `init_pred_var` is 5.

    Args:
      variance: the variance of every channel, larger than epsilon.
      epsilon: that of `vid`.

    Returns:
      A number, `[]`.
    """
    excess = variance - epsilon
    return excess + math.log(-math.expm1(-excess))


def activation_boundary(
    student: Maps,
    teacher: Maps,
    *,
    margin: float = 1.0,
    scale: float = 3 / 1000,
) -> jax.Array:
    """Activation boundaries (AB): a hinge on the teacher's signs of activation.

    `scale * sum_i 2^(i - n + 1) sum r_i` over n layers (i = 0, ..., n - 1), positions and channels,
    with the hinge `r = max(0, margin - student)^2` where the teacher is positive and
    `max(0, margin + student)^2` elsewhere.

    Source: Heo et al., AAAI 2019, arXiv 1811.03233; checked against `distiller_zoo/AB.py` of
    RepDistiller, `ABLoss`, whose factor 3 / 1000 is `scale`.

    Args:
      student: maps `[B, H, W, C]` before activation, after a connector to the teacher's shape; the
        first layer first. Or one map.
      teacher: maps `[B, H, W, C]` before activation, likewise. Only its signs are used.
      margin: > 0.
      scale: factor of the sum.

    Returns:
      `[B]`, summed over positions, channels and layers.

    Raises:
      ValueError: shapes differ, or the layers have no order.
    """
    pairs = in_order(student, teacher, stop_teacher=True)
    terms = []
    for i, (connected, target) in enumerate(pairs):
        same_shape(connected, target)
        side = jnp.where(target > 0, 1.0, -1.0).astype(connected.dtype)
        shortfall = jnp.square(jnp.maximum(margin - side * connected, 0.0))
        weight = 2.0 ** (i - len(pairs) + 1)
        terms.append(scale * weight * shortfall.sum(tuple(range(1, shortfall.ndim))))
    return total(terms)


def factor_transfer(
    student: jax.Array,
    teacher: jax.Array,
    *,
    p1: int | None = 2,
    p2: int = 1,
    stop_teacher: bool = True,
) -> jax.Array:
    """Factor transfer (FT): `mean |F_s - F_t|^p2` of normalized factors.

    With `p1=None`, as in the paper, F is the factor, flattened and divided by its length. With a
    number, as in RepDistiller, it is the map of `mean_c f_c^p1` of the factor's channels, flattened
    and divided by its length. The larger factor is pooled first.

    Source: Kim et al., NeurIPS 2018, arXiv 1802.04977; checked against
    `distiller_zoo/FT.py` of RepDistiller, `FactorTransfer`, and the paper's own code.

    Args:
      student: `[B, H, W, C]` the factor that the translator makes of the student's map.
      teacher: `[B, H, W, C]` the factor that the paraphraser makes of the teacher's map. With `p1`
        a number the numbers of channels may differ.
      p1: power of the factor's channels, >= 1, or None. At an odd power channels keep their sign.
      p2: power of the difference, >= 1.
      stop_teacher: whether the teacher's factor is a constant.

    Returns:
      `[B]`.

    Raises:
      ValueError: maps that are not `[B, H, W, C]`, or, with `p1=None`, shapes that differ.
    """
    [pair] = by_layer(student, teacher, stop_teacher=stop_teacher)
    pair = match_resolution(*pair)
    if p1 is None:
        same_shape(*pair)
        students, teachers = (unit(flattened(x)) for x in pair)
    else:
        students, teachers = (_attention(x, p1) for x in pair)
    return example_mean(jnp.abs(students - teachers) ** p2)


def _attention(x: jax.Array, power: int) -> jax.Array:
    """`[B, H, W, C] -> [B, H * W]`: unit vectors of the channels' mean power."""
    return unit(flattened((x**power).mean(-1)))
