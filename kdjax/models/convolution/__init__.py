"""Convolutions: one function that all networks call, and what it does on CPUs.

    convolve         takes the arguments of `jax.lax.conv_general_dilated`
    plain            a context in which `convolve` is that function (what is exported needs it)

Off the CPU, and for every window that the rest of this package does not know, `convolve` is
`jax.lax.conv_general_dilated`. On an x86 CPU three maps replace it, each the derivative of the
others: the convolution and its input gradient by oneDNN (`onednn`), which jaxlib contains, and the
kernel gradient as matrix products (`kernel_gradient`). `choice` says for which shapes.
"""

from kdjax.models.convolution.convolve import convolve
from kdjax.models.convolution.choice import plain

__all__ = ["convolve", "plain"]
