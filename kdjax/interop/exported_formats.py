"""What a file of each export format holds, and the logits that it computes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from kdjax.errors import UserError
from kdjax.interop import onnx
from kdjax.interop import torch as interop
from kdjax.interop.deployed import Images
from kdjax.networks import Network

PLATFORMS = ("cpu", "cuda", "tpu")
_LOCATIONS = "jax_traceback_in_locations_limit"

# Of file names, by format.
SUFFIXES = {"stablehlo": ".stablehlo", "onnx": ".onnx", "torch": ".safetensors"}


class Exported(NamedTuple):
    """A network, and the images on which its files are verified."""

    network: Network
    images: Images
    apply: Callable[[Any, ArrayLike], jax.Array]  # variables, images to logits
    sample: np.ndarray  # [B, H, W, C]

    def logits(self, variables: Any, *, exact: bool = False) -> np.ndarray:
        """Logits `[B, N]` of the network; `exact`: in full float32 precision on every backend."""
        precision = "highest" if exact and jax.default_backend() != "cpu" else None
        with jax.default_matmul_precision(precision):
            return np.asarray(self.apply(variables, self.sample))

    def closed(self, images: jax.Array) -> jax.Array:
        """`apply` with the network's weights."""
        return self.apply(self.network.variables, images)


def _stablehlo(exported: Exported) -> tuple[bytes, dict[str, Any]]:
    (batch,) = jax.export.symbolic_shape("batch")
    spec = jax.ShapeDtypeStruct((batch, *exported.images.shape), np.float32)
    with _without_locations():
        program = jax.export.export(jax.jit(exported.closed), platforms=PLATFORMS)(spec)
    return bytes(program.serialize()), {"platforms": list(PLATFORMS), "jax": jax.__version__}


@contextlib.contextmanager
def _without_locations() -> Iterator[None]:
    """Omits the paths of source files from programs that are lowered in the block."""
    frames = getattr(jax.config, _LOCATIONS)
    jax.config.update(_LOCATIONS, 0)
    try:
        yield
    finally:
        jax.config.update(_LOCATIONS, frames)


def _onnx(exported: Exported) -> tuple[bytes, dict[str, Any]]:
    name = exported.network.spec.full_name
    try:
        content = onnx.convert(exported.closed, exported.images.shape, name)
    except onnx.Unsupported as error:
        raise UserError(f"{name} cannot be written as ONNX: {error}; leave onnx out") from error
    return content, {"opset": onnx.OPSET}


def _torch(exported: Exported) -> tuple[bytes, dict[str, Any]]:
    state = state_dict(exported.network)
    content = interop.encoded(state, SUFFIXES["torch"])
    return content, {"arrays": len(state), "images": "normalized, NCHW"}


# What a file is made of, and what its entry in the JSON description says of it, by format.
WRITERS = {"stablehlo": _stablehlo, "onnx": _onnx, "torch": _torch}


def state_dict(network: Network) -> interop.StateDict:
    """A network's PyTorch state dict.

    Raises:
      UserError: the network has no counterpart in PyTorch.
    """
    return interop.export_state_dict(network.module(), network.variables)


def largest_difference(exported: Exported, file: Path, form: str) -> float:
    """The largest difference of a file's logits, relative to the network's largest logit."""
    variables, sample = exported.network.variables, exported.sample
    exact = form != "stablehlo"
    expected = exported.logits(variables, exact=exact)
    if form == "stablehlo":
        logits = np.asarray(jax.export.deserialize(bytearray(file.read_bytes())).call(sample))
    elif form == "onnx":
        logits = onnx.Session(file)(sample)
    else:
        module, shape = exported.network.module(), exported.images.shape
        again, _ = interop.import_state_dict(module, interop.read(file), image_shape=shape)
        logits = exported.logits(again, exact=exact)
    largest = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
    return float(np.abs(logits - expected).max()) / largest
