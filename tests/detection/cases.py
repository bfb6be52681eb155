"""The golden cases of torchvision and pycocotools."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np

from tests import golden

TOLERANCE = 1e-9


def arrays(name: str) -> dict[str, np.ndarray]:
    """The arrays of `golden/transfer/<name>.npz`."""
    with np.load(golden.path("transfer", f"{name}.npz")) as file:
        return dict(file)


def hyper(name: str) -> dict[str, Any]:
    """The settings of a case."""
    return _index()[f"{name}.npz"]["hyper"]


def record(name: str) -> dict[str, Any]:
    """The description of a network."""
    return json.loads(golden.path("transfer", f"{name}.json").read_text())


def weights(entries, scales=None) -> dict[str, np.ndarray]:
    """Filled arrays by name, from `[name, shape, kind]`; in torch's layout, float32."""
    scales = scales or {}
    return {
        name: golden.fill(name, shape, kind) * np.float32(scales.get(name, 1))
        for name, shape, kind in entries
    }


@functools.cache
def _index() -> dict[str, dict]:
    cases = json.loads(golden.path("transfer", "index.json").read_text())["cases"]
    return {case["file"]: case for case in cases}


def close(actual, expected) -> None:
    """Fails unless float64 numbers are the golden ones."""
    actual = np.asarray(actual)
    assert actual.dtype == np.float64
    golden.assert_close(actual, expected, TOLERANCE)
