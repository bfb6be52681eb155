"""Convolutions: the one function that all networks call, and what is faster than XLA's on CPUs.

`convolve` takes the arguments of `jax.lax.conv_general_dilated`. On CPUs the gradients of large
kernels are matrix products (`kernel_gradient`), or, with `KDJAX_CPU_KERNELS=1` and in float32, all
of a large convolution is computed by a library that is compiled on the machine (`native`).
"""

from kdjax.models.convolution.convolve import convolve

__all__ = ["convolve"]
