"""A pytest plugin: golden tests record how far they are off, in one dtype.

    GOLDEN=shared/golden ERRORS=DIR GOLDEN_DTYPE=bfloat16 pytest -p experiments.gpu.recording ...

Every comparison with a golden array becomes a line of JSON in DIR, and fails no test: `numbers.py`
holds the largest errors against the tolerances of the device. What the tests check beside golden
arrays still fails them.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests import golden

DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}

_dtype = os.environ["GOLDEN_DTYPE"]
_file = Path(os.environ["ERRORS"]) / f"{_dtype}-{os.getpid()}.jsonl"
_case = {"name": ""}
_read = golden.loss


def root() -> Path:
    """The folder of the golden numbers that was given."""
    return Path(os.environ["GOLDEN"])


def loss(name: str) -> golden.Loss:
    """Reads a golden loss; comparisons from here on are of it."""
    _case["name"] = name
    return _read(name)


def assert_close(actual, expected, tolerance: float | None = None) -> None:
    """Records the largest difference over the largest absolute value."""
    del tolerance
    actual, expected = (np.asarray(x).astype(np.float64) for x in (actual, expected))
    assert actual.shape == expected.shape
    difference = np.abs(actual - expected).max(initial=0)
    record({"error": float(difference / (np.abs(expected).max(initial=0) or 1))})


def compare(actual, expected, dtype) -> None:
    """The same; values may be of more precision than `dtype`, as losses are."""
    del dtype
    assert_close(actual, expected)


def record(line: dict) -> None:
    """Appends a line on the case at hand."""
    family = re.sub(r"(_n?\d+)+$", "", _case["name"])
    with _file.open("a") as file:
        file.write(json.dumps({"family": family, "case": _case["name"], **line}) + "\n")


golden.root, golden.loss = root, loss
golden.assert_close, golden.compare = assert_close, compare


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc) -> None:
    """Tests of any dtype run in the one that was asked for."""
    if "dtype" in metafunc.fixturenames:
        mark = pytest.mark.parametrize("dtype", [DTYPES[_dtype]], indirect=True, ids=[_dtype])
        metafunc.definition.add_marker(mark)


def pytest_collection_modifyitems(config, items) -> None:
    """Of the tests, those of golden arrays in any dtype."""
    kept = [item for item in items if "dtype" in item.fixturenames and _is_golden(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def _is_golden(item) -> bool:
    return any(isinstance(value, str) for value in item.callspec.params.values())


def pytest_runtest_setup(item) -> None:
    _case["name"] = next(v for v in item.callspec.params.values() if isinstance(v, str))
