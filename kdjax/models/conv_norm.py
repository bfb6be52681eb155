"""A convolution and what follows it: BatchNorm, a residual sum, ReLU.

In training and by XLA these are the layers one after the other. In evaluation on CPUs the library
of `kdjax.models.convolution` computes them in one pass: the feature map
goes to memory once, and a compact network's filters are put among the channels of a residual sum on
the way. Flax's `intercept_methods` and `capture_intermediates` see the layers of the former alone.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from kdjax.models import channels, narrowing
from kdjax.models.convolution.convolve import library_window
from kdjax.models.convolution.finish import Finish
from kdjax.models.convolution.finished import finished_convolution
from kdjax.models.convolution.window import LAYOUT
from kdjax.models.layers import BatchNorm
from kdjax.models.linear import Conv


class Summand(NamedTuple):
    """A feature map that is added to another one.

    Attributes:
      x: `[B, H, W, C]`.
      step: every so many-th pixel is taken,
      first: with zeros as the channels before this one, and behind the last of its own.
    """

    x: jax.Array
    step: int = 1
    first: int = 0

    def of(self, width: int) -> jax.Array:
        """The map with `width` channels, `[B, H / step, W / step, width]`."""
        missing = width - self.x.shape[-1]
        if self.step == 1 and not missing:
            return self.x
        sides = [(0, 0)] * 3 + [(self.first, missing - self.first)]
        return jnp.pad(self.x[:, :: self.step, :: self.step], sides)


def conv_norm(
    conv: Conv,
    norm: BatchNorm | None,
    x: jax.Array,
    train: bool,
    *,
    summand: Summand | None = None,
    relu: bool = False,
) -> jax.Array:
    """`norm(conv(x)) + summand`, then ReLU if `relu`: `[B, H, W, C] -> [B, H', W', C']`.

    Args:
      conv: the convolution, bound.
      norm: the BatchNorm after it, bound; None for none.
      x: its input.
      train: whether BatchNorm uses the batch's statistics.
      summand: what is added; None for nothing.
      relu: whether ReLU is the end.
    """
    if not (train or conv.is_initializing()):
        y = _by_library(conv, norm, x, summand, relu)
        if y is not None:
            return y
    y = conv(x)
    if norm is not None:
        y = norm(y, train)
    if summand is not None:
        y = y + summand.of(y.shape[-1])
    return nn.relu(y) if relu else y


def _by_library(
    conv: Conv, norm: BatchNorm | None, x: jax.Array, summand: Summand | None, relu: bool
) -> jax.Array | None:
    """`conv_norm` in evaluation, or None where the library does not compute it."""
    kernel: jax.Array = conv.get_variable("params", "kernel")
    reads = np.arange(x.shape[-1])
    narrow = narrowing.of_layer(conv)
    if narrow.reads is not None and narrow.select:
        reads = np.flatnonzero(narrow.reads)
    arrays = [x, kernel] if summand is None else [x, kernel, summand.x]
    layers = [conv] if norm is None else [conv, norm]
    if any(np.dtype(each.dtype) != np.float32 for each in (*arrays, *layers)):
        return None
    window = library_window(
        jax.ShapeDtypeStruct((*x.shape[:3], len(reads)), x.dtype),
        kernel,
        conv.strides,
        conv.padding,
        rhs_dilation=conv.kernel_dilation,
        dimension_numbers=LAYOUT,
        feature_group_count=conv.feature_group_count,
    )
    if window is None:
        return None
    factors, offsets, places = _affine(conv, norm, x)
    finish = Finish(window, tuple(reads.tolist()), tuple(places.tolist()), relu)
    other: jax.Array = jnp.zeros((0,), x.dtype)
    if summand is not None:
        finish = finish._replace(step=summand.step, first=summand.first)
        other = summand.x
    return finished_convolution(x, kernel, factors, offsets, other, finish)


def _affine(
    conv: Conv, norm: BatchNorm | None, x: jax.Array
) -> tuple[jax.Array, jax.Array, np.ndarray]:
    """What BatchNorm and a compact network make of the sums of a convolution of `x`.

    Returns:
      Factors `[filters]`, offsets `[1, 1, C]` or `[H', W', C]`, and the filter of every channel, -1
      for none.
    """
    narrow = narrowing.of_layer(conv)
    kernel: jax.Array = conv.get_variable("params", "kernel")
    filters = kernel.shape[-1]
    offsets = jnp.zeros((1, 1, filters))
    if conv.use_bias:
        offsets = offsets + conv.get_variable("params", "bias")
    if narrow.folded:
        folded: jax.Array = conv.get_variable("params", "folded")
        offsets = offsets + channels.of_constant(conv, folded, x.shape[1:3])
    kept = np.ones(filters, bool)
    if narrow.widen and narrow.filters is not None:
        kept = narrow.filters
        offsets = channels.widen(offsets, kept, 0)
    factors = jnp.ones((filters,))
    if norm is not None:
        scale, offset = norm.affine_in_evaluation()
        factors, offsets = scale[np.flatnonzero(kept)], offsets * scale + offset
        widened = narrowing.of_layer(norm)
        if widened.widen and widened.filters is not None:
            kept = widened.filters
            offsets = channels.widen(offsets, kept, 0)
    return factors, offsets, np.where(kept, np.cumsum(kept) - 1, -1)
