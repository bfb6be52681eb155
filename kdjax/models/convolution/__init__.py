"""Convolutions: the one function that all networks call, and what is faster than XLA's on CPUs.

`convolve` takes the arguments of `jax.lax.conv_general_dilated`. On CPUs large convolutions in
float32 are computed by a library that is compiled on the machine (`native`); in bfloat16, and where
there is no compiler, the gradients of large kernels are matrix products (`kernel_gradient`).
"""

from kdjax.models.convolution.convolve import convolve

__all__ = ["convolve"]
