"""The size of a network: parameters and multiply-adds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def parameter_count(params: Any) -> int:
    """Number of scalars in a pytree of arrays (BatchNorm's scale and bias included)."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def multiply_adds(module: nn.Module, image_shape: Sequence[int]) -> int:
    """Multiply-adds of one image `[H, W, C]` through `module(images)`: what the papers' tables say.

    Counts convolutions and fully connected layers, each call once; taps that fall on padding count,
    biases, normalisation, pooling and activations do not. (A compiler's figure is lower, because it
    leaves out the padding.) FLOPs are twice this. Nothing is computed: shapes are enough.

    Source: `cal_multi_adds` in HSAKD utils.py, MCL utils.py and MCL-OKD utils.py.
    """
    total = 0

    def count(next_function, args, kwargs, context):
        nonlocal total
        output = next_function(*args, **kwargs)
        if isinstance(context.module, nn.Conv | nn.Dense) and context.method_name == "__call__":
            # One kernel [..., in / groups, out] gives one output pixel of all channels.
            kernel = context.module.get_variable("params", "kernel")
            total += math.prod(output.shape[1:-1]) * math.prod(kernel.shape)
        return output

    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    with nn.intercept_methods(count):
        jax.eval_shape(module.init, jax.random.key(0), images)
    return total
