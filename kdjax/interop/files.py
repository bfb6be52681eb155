"""Files of weights: safetensors, and files of `torch.save`, read without executing code."""

from __future__ import annotations

import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from kdjax.errors import UserError
from kdjax.runs.files import write_atomically

StateDict = dict[str, np.ndarray]

# Keys under which official training scripts save the state dict.
_NESTED = ("state_dict", "net", "model", "model_state_dict", "student", "teacher")
_SHOWN = 8

# Types of arrays in safetensors files.
_WITHOUT_NUMPY_DTYPE = ("BF16", "F8_E4M3", "F8_E5M2")
_SAFETENSORS: dict[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


def some(items: list[str]) -> str:
    """The items separated by commas; of long lists the first few and the number of others."""
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def read(file: str | Path) -> StateDict:
    """Reads the state dict in a `.safetensors` file or a file of `torch.save`.

    Files of `torch.save` are read with `weights_only`: a pickle that would execute code is refused
    before any of it runs. The state dict may be nested under a key such as 'net', 'state_dict' or
    'model'.

    Raises:
      UserError: no such file, truncated, not weights, or the package that reads it is missing.
    """
    file = Path(file)
    if not file.is_file():
        raise UserError(f"{file} does not exist")
    loaded = _read_safetensors(file) if file.suffix == ".safetensors" else _read_torch(file)
    return _arrays(loaded, file)


def _read_safetensors(file: Path) -> StateDict:
    from safetensors import SafetensorError, deserialize

    try:
        stored = deserialize(file.read_bytes())
        return {name: _decoded(name, array, file) for name, array in stored}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{file} is damaged or no safetensors file: {_line(error)}") from error


def _decoded(name: str, stored: Mapping[str, Any], file: Path) -> np.ndarray:
    """One array of a safetensors file; floats without a numpy dtype are converted to float32."""
    dtype = _SAFETENSORS.get(stored["dtype"])
    if dtype is None:
        raise UserError(
            f"{file}: {name} is of {stored['dtype']}; kdjax reads {', '.join(_SAFETENSORS)}"
        )
    array = np.frombuffer(stored["data"], dtype).reshape(stored["shape"])
    return array.astype(np.float32) if stored["dtype"] in _WITHOUT_NUMPY_DTYPE else array


def _read_torch(file: Path) -> Any:
    torch = _torch(file)
    try:
        # Scripts save the best accuracy beside the weights, often as a numpy number.
        with torch.serialization.safe_globals(_numpy_scalars()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats that the reader then refuses
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if match := re.search(r"Unsupported global: GLOBAL (\S+)", str(error)):
            raise UserError(
                f"{file} refers to {match[1]}: it holds more than weights, which could run code, "
                "or is damaged; nothing of it was run; in PyTorch save model.state_dict() and "
                "import that"
            ) from error
        # PyTorch's own message advises to let the file execute code.
        raise UserError(f"{file} is damaged or no PyTorch file") from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is damaged or no PyTorch file: {_line(error)}") from error


def _numpy_scalars() -> list[Any]:
    kinds = (np.float16, np.float32, np.float64, np.int32, np.int64, np.bool_)
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]  # not public
    return [
        scalar,
        (scalar, "numpy.core.multiarray.scalar"),
        np.dtype,
        *(type(np.dtype(kind)) for kind in kinds),
    ]


def _torch(file: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{file} needs PyTorch: pip install 'kdjax[torch]', or use a .safetensors file"
        ) from error
    return torch


def _line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(map(_is_array, value.values()))


def _arrays(loaded: Any, file: Path) -> StateDict:
    """Finds the state dict in what was loaded."""
    if isinstance(loaded, Mapping) and not _is_state_dict(loaded):
        dicts = [loaded[key] for key in _NESTED if _is_state_dict(loaded.get(key))]
        loaded = dicts[0] if dicts else loaded
    if not _is_state_dict(loaded):
        keys = [f"{key!r}" for key in loaded] if isinstance(loaded, Mapping) else []
        kind = type(loaded).__name__
        raise UserError(f"{file} holds no state dict, but a {kind} {some(keys)}".rstrip())
    return {str(name): _numpy(str(name), value, file) for name, value in loaded.items()}


def _numpy(name: str, value: Any, file: Path) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    try:
        value = value.detach().cpu()
        if str(value.dtype).removeprefix("torch.").startswith(("bfloat16", "float8")):
            value = value.float()
        return value.numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:  # sparse, quantized, empty ones
        raise UserError(f"{file}: {name} cannot be read as an array: {_line(error)}") from error


def write(file: str | Path, state: Mapping[str, np.ndarray]) -> None:
    """Writes a state dict: `.safetensors`, or else a file for `torch.load`.

    Raises:
      UserError: the file cannot be written, or torch is missing.
    """
    file = Path(file)
    write_atomically(file, encoded(state, file.suffix))


def encoded(state: Mapping[str, np.ndarray], suffix: str) -> bytes:
    """The content of a file of a state dict, with the suffix '.safetensors' or PyTorch's own.

    Raises:
      UserError: torch is needed and missing.
    """
    if suffix == ".safetensors":
        from safetensors.numpy import save

        return save(dict(state))
    torch, buffer = _torch(Path(f"a {suffix} file")), io.BytesIO()
    torch.save({n: torch.from_numpy(v.copy()) for n, v in state.items()}, buffer)
    return buffer.getvalue()
