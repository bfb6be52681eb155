"""Export of trained networks to files for deployment, each verified before it is kept.

    stablehlo  written by `jax.export`, for CPU, CUDA and TPU at once
    onnx       `kdjax.interop.onnx`
    torch      a state dict, `kdjax.interop.torch`

StableHLO and ONNX files hold functions from any number of images to logits, with the weights.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

import kdjax
from kdjax.errors import UserError
from kdjax.interop import torch as interop
from kdjax.interop.deployed import Images
from kdjax.interop.exported_formats import (
    SUFFIXES,
    WRITERS,
    Exported,
    largest_difference,
    state_dict,
)
from kdjax.models.outputs import outputs_of
from kdjax.networks import Network
from kdjax.runs.files import writing

# The largest difference of any logit from the network's, relative to the largest logit.
TOLERANCE = 1e-4
# On other backends than CPU: their convolutions multiply with eight to eleven bits by default, and
# a program that is compiled again may sum in another order.
_COARSE_TOLERANCE = 1e-2

_PACKAGES = {"stablehlo": ("flatbuffers",), "onnx": ("onnx", "onnxruntime"), "torch": ()}
FORMATS = tuple(SUFFIXES)
_IMAGES = 3  # that files are compared on


def files(directory: Path, name: str, formats: Sequence[str]) -> dict[str, Path]:
    """The paths that `write` writes, by format; that of the JSON description is under ''.

    Raises:
      UserError: an unknown format, a missing package, a file that exists, or a name with a
        directory in it.
    """
    if Path(name).name != name or name in ("", ".."):
        raise UserError(f"{name!r} is no name of a file in {directory}")
    unknown = [form for form in formats if form not in FORMATS]
    if unknown or not formats:
        raise UserError(f"--formats={','.join(formats)}: choose from {','.join(FORMATS)}")
    for form in formats:
        missing = [name for name in _PACKAGES[form] if importlib.util.find_spec(name) is None]
        if missing:
            raise UserError(
                f"--formats: {form} needs {' and '.join(missing)}: pip install 'kdjax[export]', or "
                f"leave {form} out"
            )
    paths = {form: directory / f"{name}{SUFFIXES[form]}" for form in formats}
    paths[""] = directory / f"{name}.json"
    for file in paths.values():
        if file.exists():
            raise UserError(f"{file} exists; remove it or name another --output")
    return paths


def write(
    network: Network, images: Images, directory: Path, name: str, formats: Sequence[str]
) -> Iterator[str]:
    """Writes a network's files and verifies each against the network.

    If one format fails, its file is removed and the other formats are still written.

    Args:
      network: a network without branches.
      images: the input images of the exported functions.
      directory: the directory of the files; created if missing.
      name: the name of the files: NAME.stablehlo, NAME.onnx, NAME.safetensors, NAME.json.
      formats: names in `FORMATS`.

    Yields:
      A line about each file.

    Raises:
      UserError: as `files`; the directory cannot be written; or, after all formats, an error for
        those that failed: the network has no such form, or the file computes other logits.
    """
    paths = files(directory, name, formats)
    _make(directory)
    exported = _exported(network, images)
    written, failures = {}, []
    # Another export of this name is refused meanwhile.
    with writing(paths[""], replace=False) as description:
        for form in formats:
            try:
                written[form] = _write(exported, paths[form], form)
            except UserError as error:
                failures.append(str(error))
                continue
            yield f"{form:<10}{_line(paths[form], written[form]['largest_relative_difference'])}"
        if not written:
            raise UserError("; ".join(failures))
        description.write_text(_described(exported, written))
    yield f"{'json':<10}{paths['']}"
    if failures:
        raise UserError("; ".join(failures))


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output={directory} cannot be written: {error.strerror}") from error


def _exported(network: Network, images: Images) -> Exported:
    module = network.module()

    def apply(variables: Any, pixels: jax.Array) -> jax.Array:
        return outputs_of(module, variables, images.normalized(pixels)).logits

    sample = images.random(_IMAGES)
    return Exported(network, images, jax.jit(apply), sample)


def _write(exported: Exported, file: Path, form: str) -> dict[str, Any]:
    """Writes one format under a temporary name, verifies it, and renames it.

    Returns:
      The entry of the file in the JSON description.
    """
    content, details = WRITERS[form](exported)
    with writing(file, replace=False) as unchecked:
        unchecked.write_bytes(content)
        difference = largest_difference(exported, unchecked, form)
        tolerance = TOLERANCE
        if form == "stablehlo" and jax.default_backend() != "cpu":
            tolerance = _COARSE_TOLERANCE
        if not difference <= tolerance:  # nor if it is not a number
            raise UserError(
                f"{form} file of {exported.network.spec.full_name}: its logits differ from the "
                f"network's by {difference:.1e}, relative to the largest; more than "
                f"{tolerance:.0e}, so it was removed"
            )
    return {"file": file.name, **details, "largest_relative_difference": difference}


def write_state_dict(file: Path, network: Network) -> int:
    """Writes a network's PyTorch state dict; returns the number of its arrays.

    Raises:
      UserError: the network has no counterpart in PyTorch, or the file cannot be written.
    """
    state = state_dict(network)
    interop.write(file, state)
    return len(state)


def _line(file: Path, difference: float) -> str:
    megabytes = file.stat().st_size / 1e6
    return f"{file}  {megabytes:.1f} MB  largest relative difference {difference:.1e}"


def _described(exported: Exported, written: dict[str, dict[str, Any]]) -> str:
    """The description of an export's files."""
    network = exported.network
    description = {
        "network": network.spec.full_name,
        "num_classes": network.spec.num_classes,
        "input": exported.images.described(),
        "output": {
            "name": "logits",
            "shape": ["batch", network.spec.num_classes],
            "dtype": "float32",
        },
        "files": written,
        "kdjax": kdjax.__version__,
    }
    if network.spec.compaction is not None:
        description["compaction"] = network.spec.compaction.as_dict()
    return json.dumps(description, indent=2) + "\n"
