"""oneDNN's convolutions, which jaxlib for x86 contains and XLA does not use by itself.

XLA's CPU compiler translates the custom call below to oneDNN; newer ones make it themselves under
the option `xla_cpu_experimental_onednn_custom_call`. Names and form are not documented, so `works`
compiles a small convolution once in a process, compares it, and else keeps XLA's own.

oneDNN ends the process where it has no kernel for a dtype, so what a processor can do is read from
the system, not tried: float32 on any with AVX2, bfloat16 with AMX.
"""

from __future__ import annotations

import functools
import json
import platform
from pathlib import Path

import jax
import numpy as np
from absl import logging
from jax import numpy as jnp

from kdjax.models.convolution import window as windows
from kdjax.models.convolution.window import Window

_TARGET = "__onednn$convolution"
_PROCESSOR = Path("/proc/cpuinfo")
# The instructions that make oneDNN faster than XLA, by dtype.
_NEEDED = {"float32": "avx2", "bfloat16": "amx_bf16"}
# The largest difference of the guard's convolution, relative to the largest value.
_TOLERANCES = {"float32": 1e-5, "bfloat16": 2e-2}
_UNIT = Window((6, 7), (3, 3), (1, 1), ((1, 1), (1, 1)))


def convolution(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """`[B, H, W, I]`, `[kh, kw, I, O]` -> `[B, H', W', O]`."""
    return _call(x, w, window, w.shape[3], features=(2, 3))


def input_gradient(y: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """`[B, H', W', O]`, `[kh, kw, I, O]` -> `[B, H, W, I]` of a window with stride 1.

    That is the convolution with the kernel turned by 180 degrees, its features exchanged.
    """
    padding = tuple(
        (kernel - 1 - before, kernel - 1 - after)
        for kernel, (before, after) in zip(window.kernel, window.padding, strict=True)
    )
    back = Window(window.output, window.kernel, (1, 1), padding)
    return _call(y, w[::-1, ::-1], back, w.shape[2], features=(3, 2))


def _call(
    x: jax.Array, w: jax.Array, window: Window, channels: int, features: tuple[int, int]
) -> jax.Array:
    """The custom call; `features` are the kernel's axes of input and output channels."""
    images = {"dims": "0", "data": _axes(batch_dim=0, feature_dim=3, spatial_dims=(1, 2))}
    config = {
        "dims": "4",
        "feature_groups": "1",
        "input": images,
        "output": images,
        "kernel": {
            "dims": "0",
            "filter": _axes(
                input_feature_dim=features[0],
                output_feature_dim=features[1],
                spatial_dims=(0, 1),
                shape=w.shape,
            ),
        },
        "window": _axes(
            size=(),
            pad_left=[before for before, _ in window.padding],
            pad_right=[after for _, after in window.padding],
            strides=window.strides,
            window_dilations=(1, 1),
        ),
        "optimization_config": {
            "bias_broadcast": False,
            "user_scratchpad": False,
            "weights_prepacked": False,
        },
    }
    result = jax.ShapeDtypeStruct((x.shape[0], *window.output, channels), x.dtype)
    call = jax.ffi.ffi_call(
        _TARGET,
        result,
        custom_call_api_version=1,
        legacy_backend_config=json.dumps({"onednn_conv_config": config}),
    )
    return call(x, w)


def _axes(**fields) -> dict:
    """Numbers as the strings that 64-bit integers are in this format."""
    return {
        name: str(value) if isinstance(value, int) else [str(each) for each in value]
        for name, value in fields.items()
    }


@functools.cache
def works(dtype: str) -> bool:
    """Whether this process may use oneDNN for a dtype: the processor can, and numbers are right."""
    if platform.machine() != "x86_64" or _NEEDED.get(dtype) not in _instructions():
        return False
    reason = _fault(dtype)
    if reason:
        logging.warning("Convolutions in %s are XLA's, which are slower: %s", dtype, reason)
    return not reason


def _fault(dtype: str) -> str:
    """What is wrong with oneDNN's convolution of a small image and its input gradient; or ''."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, 2, *_UNIT.image, 16)).astype(jnp.dtype(dtype))
    w = random.normal(size=(*_UNIT.kernel, 16, 16)).astype(jnp.dtype(dtype))
    for name, arrays in (("convolution", (x, w)), ("input_gradient", (y, w))):
        try:  # compiled ahead of time, so that it also runs while another function is traced
            fast = jax.jit(functools.partial(globals()[name], window=_UNIT))
            made = np.asarray(fast.lower(*arrays).compile()(*arrays), np.float32)
        except jax.errors.JaxRuntimeError as error:
            return f"{_TARGET} is not as expected here ({str(error).splitlines()[0]})"
        slow = jax.jit(functools.partial(getattr(windows, name), window=_UNIT))
        expected = np.asarray(slow.lower(*arrays).compile()(*arrays), np.float32)
        difference = np.abs(made - expected).max() / np.abs(expected).max()
        if not difference <= _TOLERANCES[dtype]:
            return f"oneDNN's {name} differs by {difference:.1e}"
    return ""


@functools.cache
def _instructions() -> frozenset[str]:
    """The instruction sets that Linux names; none on other systems."""
    if not _PROCESSOR.exists():
        return frozenset()
    lines = _PROCESSOR.read_text().splitlines()
    flags = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(flags.partition(":")[2].split())
