"""The axis that a kernel's filters are on: the last one (flax, Haiku) or the first (PyTorch,
Equinox).

Everything else in this package sees kernels as flax keeps them, [h, w, in, C] and [in, C]; those of
other projects, [C, in, h, w] and [C, in], are turned.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

FILTER_AXES = (None, -1, 0)


def check_axis(filter_axis: int | None) -> None:
    """Checks that `filter_axis` is -1, 0 or None.

    Raises:
      ValueError: it is not.
    """
    if filter_axis not in FILTER_AXES:
        raise ValueError(
            f"filter_axis={filter_axis!r} is unknown; use -1 (flax, Haiku: kernels [h, w, in, C]) "
            "or 0 (PyTorch, Equinox: [C, in, h, w])"
        )


def last_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """[C, in, ...] as [..., in, C]."""
    return (*shape[2:], *shape[:2][::-1])


def filters_last(x: jax.Array) -> jax.Array:
    """`[C, in, ...] -> [..., in, C]`; vectors stay."""
    return jnp.transpose(x, (*range(2, x.ndim), *range(x.ndim)[:2][::-1]))


def filters_first(x: jax.Array) -> jax.Array:
    """The inverse of `filters_last`."""
    return jnp.transpose(x, (*range(x.ndim)[-2:][::-1], *range(x.ndim)[:-2]))


def shapes_last(params: Any) -> Any:
    """The shapes of a tree whose filters are on the first axis, as if they were on the last."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(last_shape(x.shape), x.dtype), params)


def seems_first(path: str, shape: tuple[int, ...]) -> bool:
    """Whether a kernel's filters seem to be on its first axis.

    So they are where arrays are called 'weight'. Otherwise a convolution [C, in, h, w] has its
    small, mostly square window on its last two axes.
    """
    if path.rpartition("/")[2] == "weight":
        return True
    if len(shape) != 4 or math.prod(shape[:2]) <= math.prod(shape[2:]):
        return False
    if max(shape[2:]) > 11:  # no window
        return False
    square = shape[2] == shape[3] and shape[0] != shape[1]
    return square or max(shape[:2]) > 11
