"""Convolutions: the one function that all networks call, and what is faster than XLA's on CPUs.

`convolve` takes the arguments of `jax.lax.conv_general_dilated` and computes the same bits. On CPUs
the gradient of a large convolution's kernel is computed as matrix products (`kernel_gradient`).
"""

from kdjax.models.convolution.convolve import convolve

__all__ = ["convolve"]
