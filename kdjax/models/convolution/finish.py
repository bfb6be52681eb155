"""What follows a convolution in evaluation, and what it is by XLA's operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

from kdjax.models.convolution import window as windows
from kdjax.models.convolution.window import Window


class Finish(NamedTuple):
    """What stands around a convolution.

    Attributes:
      window: of the convolution.
      reads: the channels of the input that are its operand, ascending.
      places: for each of the C channels of the output its filter, ascending, or -1 for zero.
      relu: whether ReLU is the end.
      step: every so many-th pixel of the other feature map is added,
      first: its channels to those from this one on.
    """

    window: Window
    reads: tuple[int, ...]
    places: tuple[int, ...]
    relu: bool = False
    step: int = 1
    first: int = 0


def by_xla(
    x: jax.Array,
    w: jax.Array,
    factors: jax.Array,
    offsets: jax.Array,
    summand: jax.Array,
    *,
    finish: Finish,
    convolution: Callable[[jax.Array, jax.Array, Window], jax.Array] = windows.convolution,
) -> jax.Array:
    """`widened(convolution(x, w) * factors) + offsets + summand`, then ReLU, `[B, H', W', C]`.

    Args:
      x: images `[B, H, W, I]`.
      w: kernel `[kh, kw, len(finish.reads), O]`.
      factors: `[O]`.
      offsets: `[1, 1, C]`, or `[H', W', C]` where they depend on the pixel.
      summand: `[B, H'', W'', C'']`, see `Finish`; without elements for none.
      finish: what is computed.
      convolution: as `kdjax.models.convolution.window.convolution`.
    """
    if len(finish.reads) < x.shape[3]:
        x = x[..., np.array(finish.reads)]
    places = np.array(finish.places)
    y = (convolution(x, w, finish.window) * factors)[..., np.maximum(places, 0)]
    y = jnp.where(places >= 0, y, 0) + offsets
    if summand.size:
        step, missing = finish.step, y.shape[3] - summand.shape[3]
        channels = (finish.first, missing - finish.first)
        y = y + jnp.pad(summand[:, ::step, ::step], [(0, 0)] * 3 + [channels])
    return jax.nn.relu(y) if finish.relu else y
