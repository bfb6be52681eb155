"""The size of a network: parameters and multiply-adds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from kdjax.models.linear import Conv, Dense

_LAYERS = (Conv, Dense, nn.Conv, nn.Dense)


def parameter_count(params: Any) -> int:
    """Number of scalars in a pytree of arrays (BatchNorm's scale and bias included)."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def _output_pixels(module: nn.Module, output: jax.Array) -> int:
    """Pixels of `output` `[B, H, W, C]`, as many as without dilation (at stride 1)."""
    sizes = output.shape[1:-1]
    if isinstance(module, Conv | nn.Conv):
        # The kernel covers (k - 1) * dilation + 1 pixels instead of k.
        dilation = np.broadcast_to(module.kernel_dilation or 1, len(sizes))
        kernel_size = np.broadcast_to(module.kernel_size, len(sizes))
        sizes = sizes + (dilation - 1) * (kernel_size - 1)
    return math.prod(map(int, sizes))


def multiply_adds(module: nn.Module, image_shape: Sequence[int]) -> int:
    """Multiply-adds of `module` for one image `[H, W, C]`, as in the papers' tables.

    Counts convolutions and fully connected layers, each call once; taps that fall on padding count,
    biases, normalization, pooling and activations do not. (A compiler's figure is lower, because it
    leaves out the padding.) A dilated convolution (of HCGNets) counts with the larger output that
    it would have without dilation, as in the papers' counter, which does not know of it. FLOPs are
    twice this. Nothing is computed: shapes are enough.

    Source: `cal_multi_adds` in HSAKD utils.py, MCL utils.py and MCL-OKD utils.py.
    """
    total = 0

    def count(next_function: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        nonlocal total
        output = next_function(*args, **kwargs)
        if isinstance(context.module, _LAYERS) and context.method_name == "__call__":
            # One kernel [..., in / groups, out] gives one output pixel of all channels.
            kernel: jax.Array = context.module.get_variable("params", "kernel")
            total += _output_pixels(context.module, output) * math.prod(kernel.shape)
        return output

    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    with nn.intercept_methods(count):
        jax.eval_shape(module.init, jax.random.key(0), images)
    return total
