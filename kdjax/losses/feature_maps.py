"""Feature maps of a student and a teacher: layer by layer, and at one resolution."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.numerics import at_least_float32

# An array, or arrays by position or by name: a sequence, a dictionary or any other pytree.
Maps = Any


def match_resolution(student: jax.Array, teacher: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Pools the larger of two maps to the resolution of the smaller one.

    Args:
      student: `[B, H_s, W_s, C_s]`.
      teacher: `[B, H_t, W_t, C_t]`.

    Returns:
      `[B, H, W, C_s]` and `[B, H, W, C_t]`, where H is the smaller of H_s and H_t, W likewise.

    Raises:
      ValueError: arrays that are not `[B, H, W, C]`.

    Source: RepDistiller (Tian et al., ICLR 2020, arXiv 1910.10699), whose losses call
    `torch.nn.functional.adaptive_avg_pool2d`; here it is `adaptive_average_pool`.
    """
    for maps in (student, teacher):
        if jnp.ndim(maps) != 4:
            raise ValueError(f"feature maps are [B, H, W, C], got {jnp.shape(maps)}")
    size = (
        min(student.shape[1], teacher.shape[1]),
        min(student.shape[2], teacher.shape[2]),
    )
    return adaptive_average_pool(student, size), adaptive_average_pool(teacher, size)


def adaptive_average_pool(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Average pooling `[B, H, W, C] -> [B, H', W', C]` to a given size, from any size.

    Pixel i of H' is the mean of the pixels from `floor(i H / H')` up to, not including,
    `ceil((i + 1) H / H')`; columns likewise. Source: `torch.nn.functional.adaptive_avg_pool2d`.

    Args:
      x: `[B, H, W, C]`.
      size: (H', W').
    """
    for axis, length in zip((1, 2), size, strict=True):
        x = _pool_axis(x, axis, length)
    return x


def _pool_axis(x: jax.Array, axis: int, length: int) -> jax.Array:
    old = x.shape[axis]
    if old == length:
        return x
    if old % length == 0:
        split = (*x.shape[:axis], length, old // length, *x.shape[axis + 1 :])
        return x.reshape(split).mean(axis + 1)
    new = jnp.arange(length)[:, None]
    start, stop = new * old // length, -(-(new + 1) * old // length)
    pixels = jnp.arange(old)[None, :]
    weights = ((start <= pixels) & (pixels < stop)) / (stop - start).astype(x.dtype)
    pooled = jnp.tensordot(x, weights, axes=(axis, 1), precision=jax.lax.Precision.HIGHEST)
    return jnp.moveaxis(pooled, -1, axis)


def by_layer(student: Maps, teacher: Maps, *, stop_teacher: bool) -> list[tuple[jax.Array, ...]]:
    """Pairs of maps, one per layer, in float32 at least; the teacher's as constants on demand.

    Raises:
      ValueError: the layers do not pair up, or the batches differ in size.
    """
    pairs = aligned(student, teacher)
    for of_student, of_teacher in pairs:
        if of_student.shape[:1] != of_teacher.shape[:1] or not of_student.ndim:
            raise ValueError(
                "student and teacher must hold the same images, got arrays of shapes "
                f"{of_student.shape} and {of_teacher.shape}"
            )
    if not stop_teacher:
        return pairs
    return [(of_student, jax.lax.stop_gradient(of_teacher)) for of_student, of_teacher in pairs]


def in_order(student: Maps, teacher: Maps, *, stop_teacher: bool) -> list[tuple[jax.Array, ...]]:
    """As `by_layer`, for losses that depend on the order of the layers.

    Raises:
      ValueError: the maps are a dictionary, or as `by_layer`.
    """
    for maps in (student, teacher):
        if isinstance(maps, Mapping):
            raise ValueError("the order of the layers matters here: give a sequence of maps")
    return by_layer(student, teacher, stop_teacher=stop_teacher)


def aligned(*trees: Maps) -> list[tuple[jax.Array, ...]]:
    """The arrays of each layer in all `trees`, in float32 at least.

    Raises:
      ValueError: the trees do not have the same layers, or none.
    """
    flat = [jax.tree.leaves_with_path(tree) for tree in trees]
    paths = [[jax.tree_util.keystr(path) for path, _ in leaves] for leaves in flat]
    if not paths[0] or any(other != paths[0] for other in paths):
        raise ValueError(f"these layers do not pair up: {' and '.join(map(str, paths))}")
    arrays = [[at_least_float32(leaf) for _, leaf in leaves] for leaves in flat]
    return list(zip(*arrays, strict=True))


def same_channels(student: jax.Array, teacher: jax.Array) -> None:
    """Checks that two maps, `[..., C]`, have the same number of channels.

    Raises:
      ValueError: the numbers differ.
    """
    if student.shape[-1] != teacher.shape[-1]:
        raise ValueError(
            "this loss needs as many channels in the student as in the teacher, "
            f"got {student.shape[-1]} and {teacher.shape[-1]}"
        )


def same_shape(student: jax.Array, teacher: jax.Array) -> None:
    """Checks that two arrays have the same shape.

    Raises:
      ValueError: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"this loss compares arrays of one shape, got {student.shape} and {teacher.shape}"
        )


def example_mean(x: jax.Array) -> jax.Array:
    """The mean of all but the first axis, `[B, ...] -> [B]`."""
    return x.mean(tuple(range(1, x.ndim)))
