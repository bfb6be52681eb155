"""Access to the golden numbers: inputs and outputs of the papers' official code.

They are not part of the package. Tests look for a folder `shared/golden` beside the checkout (or
above it) and are skipped without it. No weights are stored: `fill` makes them by the rule of the
numbers' own README, from the names of the official state dict; `kdjax.interop` puts them into
kdjax's variables.
"""

from __future__ import annotations

import functools
import json
import pathlib
import re
import zlib
from typing import NamedTuple

import numpy as np
import pytest

# How the reason of a skipped test begins; where the folder exists such a test fails, see conftest.
MISSING = "golden numbers not found"

# For steps in float64: XLA's own convolutions run there, and take minutes without optimization.
OPTIMIZED = {"xla_backend_optimization_level": 1}


def root() -> pathlib.Path | None:
    """The folder of the golden numbers, or None."""
    for parent in pathlib.Path(__file__).resolve().parents:
        if (parent / "shared" / "golden").is_dir():
            return parent / "shared" / "golden"
    return None


def require() -> pathlib.Path:
    """The folder of the golden numbers; skips the test where there is none."""
    folder = root()
    if folder is None:
        pytest.skip(f"{MISSING}: no folder shared/golden beside the checkout")
    return folder


def path(kind: str, name: str) -> pathlib.Path:
    """A file of the golden numbers: `path('losses', 'kd_distillkl_0.npz')`. Skips if absent."""
    file = require() / kind / name
    if not file.is_file():
        pytest.skip(f"{MISSING}: no {kind}/{name} in them")
    return file


class Loss(NamedTuple):
    """One golden loss: its hyper-parameters and its arrays `in_*`, `out_*`, `grad_*`."""

    hyper: dict
    arrays: dict[str, np.ndarray]


def loss_names(prefix: str) -> list:
    """Parameters for pytest: every golden file `losses/<prefix>*.npz`, or one that is skipped."""
    return _names("losses", prefix)


def trajectory_names(prefix: str) -> list:
    """Parameters for pytest: every golden file `trajectories/<prefix>*.npz`, or a skipped one."""
    return _names("trajectories", prefix)


def _names(kind: str, prefix: str) -> list:
    folder = root()
    names = sorted(file.stem for file in (folder / kind).glob(f"{prefix}*.npz")) if folder else []
    if names:
        return names
    reason = f"{MISSING}: no shared/golden/{kind}/{prefix}* beside the checkout"
    return [pytest.param("", marks=pytest.mark.skip(reason=reason), id=f"{prefix}*")]


def loss(name: str) -> Loss:
    """Reads one of the golden `losses/`."""
    with np.load(path("losses", f"{name}.npz")) as file:
        return Loss(_hyper()[f"{name}.npz"], dict(file))


@functools.cache
def _hyper() -> dict[str, dict]:
    """The hyper-parameters of every golden loss, by its file."""
    cases = json.loads(path("losses", "index.json").read_text())["cases"]
    return {case["file"]: case["hyper"] for case in cases}


def numbered(arrays: dict[str, np.ndarray], prefix: str, dtype: type | None = None) -> list:
    """`[arrays[prefix + '0'], arrays[prefix + '1'], ...]`, cast to `dtype` if given."""
    found = []
    while f"{prefix}{len(found)}" in arrays:
        found.append(arrays[f"{prefix}{len(found)}"])
    return [each.astype(dtype or each.dtype) for each in found]


class Network(NamedTuple):
    """One golden network: its description, its arrays and its input `[B, H, W, C]`."""

    record: dict
    arrays: dict[str, np.ndarray]
    images: np.ndarray


def network(name: str) -> Network:
    """Reads one of the golden `nets/`."""
    record = json.loads(path("nets", f"{name}.json").read_text())
    with np.load(path("nets", f"{name}.npz")) as file:
        arrays = dict(file)
    recipe = record["x"]
    images = np.random.RandomState(recipe["seed"]).standard_normal(recipe["shape"])
    if rounded := re.search(r"rounded to multiples of 1/(\d+)", recipe["recipe"]):
        images = np.round(images * int(rounded[1])) / int(rounded[1])
    return Network(record, arrays, images.astype(np.float32))


class Trajectory(NamedTuple):
    """A few golden optimization steps: their description and their arrays."""

    record: dict
    arrays: dict[str, np.ndarray]


def trajectory(name: str) -> Trajectory:
    """Reads one of the golden `trajectories/`."""
    record = json.loads(path("trajectories", f"{name}.json").read_text())
    with np.load(path("trajectories", f"{name}.npz")) as file:
        return Trajectory(record, dict(file))


def fill(name: str, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """The float32 value of one entry of an official state dict, in torch's layout."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    values = random.standard_normal(shape)
    if kind in ("conv_weight", "linear_weight"):
        values *= np.sqrt(2 / np.prod(shape[1:]))
    elif kind in ("bias", "bn_bias", "bn_mean"):
        values *= 0.1
    elif kind in ("bn_weight", "scale"):
        values = 1 + 0.1 * values
    elif kind == "bn_var":
        values = 1 + 0.1 * np.abs(values)
    else:
        raise ValueError(f"no rule for {kind!r}")
    return values.astype(np.float32)


def state_dict(record: dict, dtype: type = np.float32) -> dict[str, np.ndarray]:
    """The filled state dict of a golden network, batch counters included, in torch's layout."""
    state = {}
    for name, shape, kind in record["state_dict"]:
        if kind == "bn_count":
            state[name] = np.zeros(shape, np.int64)
        else:
            state[name] = fill(record["fill_prefix"] + name, shape, kind).astype(dtype)
    return state


def assert_close(actual, expected, tolerance: float = 1e-4) -> None:
    """Fails if an element differs by more than `tolerance` times the largest absolute value."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    scale = np.abs(expected).max() or 1.0
    error = np.abs(actual - expected).max() / scale
    assert error <= tolerance, f"relative error {error:.3g} > {tolerance:g} (scale {scale:.3g})"


def compare(actual, expected, dtype) -> None:
    """Fails if an array is not of `dtype`, or not the golden one in that precision."""
    assert actual.dtype == dtype
    assert_close(actual, expected, {np.float64: 1e-9, np.float32: 1e-5}[dtype])
