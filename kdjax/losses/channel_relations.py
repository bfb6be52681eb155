"""Losses that compare how the channels of an image's feature maps relate: FSP and NST."""

import functools

import jax
import jax.numpy as jnp

from kdjax.losses.feature_maps import (
    Maps,
    by_layer,
    example_mean,
    in_order,
    match_resolution,
    same_channels,
)
from kdjax.numerics import total, unit

einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


def fsp(student: Maps, teacher: Maps, *, stop_teacher: bool = True) -> jax.Array:
    """Flow of solution procedure (FSP): `sum_i mean (G_s - G_t)^2` over consecutive layers.

    `G = mean_{h,w} f_i[h, w, c] f_{i+1}[h, w, d]` `[C_i, C_{i+1}]` relates the channels of layer i
    and of the next one; the larger map of the two is pooled.

    Source: Yim et al., CVPR 2017 (there the sum of squares); checked against
    `distiller_zoo/FSP.py` of RepDistiller, `FSP`.

    Args:
      student: two maps `[B, H, W, C]` or more, the first layer first.
      teacher: likewise, with the student's numbers of channels; resolutions may differ.
      stop_teacher: whether the teacher is a constant.

    Returns:
      `[B]`, summed over the pairs of consecutive layers.

    Raises:
      ValueError: numbers of channels differ, fewer than two layers, or layers without an order.
    """
    pairs = in_order(student, teacher, stop_teacher=stop_teacher)
    if len(pairs) < 2:
        raise ValueError(f"FSP relates consecutive layers: give two or more, not {len(pairs)}")
    for pair in pairs:
        same_channels(*pair)
    students, teachers = zip(*pairs, strict=True)
    terms = []
    for i in range(len(pairs) - 1):
        difference = _flow(*students[i : i + 2]) - _flow(*teachers[i : i + 2])
        terms.append(example_mean(jnp.square(difference)))
    return total(terms)


def _flow(below: jax.Array, above: jax.Array) -> jax.Array:
    below, above = match_resolution(below, above)
    return einsum("bhwc,bhwd->bcd", below, above) / (below.shape[1] * below.shape[2])


def nst(student: Maps, teacher: Maps, *, stop_teacher: bool = True) -> jax.Array:
    """Neuron selectivity transfer (NST): the maximum mean discrepancy of two sets of channels.

    With every channel's map flattened and divided by its length (s_c, t_d) and the kernel
    `k(x, y) = <x, y>^2`:

        mean_{c,d} k(t_c, t_d) + mean_{c,d} k(s_c, s_d) - 2 mean_{c,d} k(s_c, t_d)

    The first term never has a gradient. The larger map is pooled to the smaller one's resolution.

    Source: Huang and Wang, 2017, arXiv 1707.01219, with the polynomial kernel (d = 2, c = 0);
    checked against `distiller_zoo/NST.py` of RepDistiller, `NSTLoss`.

    Args:
      student: maps `[B, H, W, C]` by position or name, or one map. Numbers of channels may differ.
      teacher: likewise.
      stop_teacher: whether the teacher is a constant in the last term too.

    Returns:
      `[B]`, summed over layers.

    Raises:
      ValueError: maps that are not `[B, H, W, C]`, or layers that do not pair up.
    """
    terms = []
    for pair in by_layer(student, teacher, stop_teacher=stop_teacher):
        students, teachers = (unit(_flat(x), axis=1) for x in match_resolution(*pair))
        constant = jax.lax.stop_gradient(teachers)
        within = _kernel(constant, constant) + _kernel(students, students)
        terms.append(within - 2 * _kernel(students, teachers))
    return total(terms)


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(len(x), x.shape[1] * x.shape[2], x.shape[-1])


def _kernel(a: jax.Array, b: jax.Array) -> jax.Array:
    return example_mean(jnp.square(einsum("bpc,bpd->bcd", a, b)))
