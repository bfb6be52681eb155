"""A plugin for pytest: the golden tests record how far they are off, in float32 and in bfloat16.

    GOLDEN=shared/golden ERRORS=DIR CASES=first pytest -p experiments.gpu.recording tests/losses

Every comparison with a golden array becomes a line of JSON in DIR, and fails no test: `numbers.py`
holds the largest errors against the tolerances of the device. What the tests check beside golden
arrays still fails them. The first case of every test comes first. Unless CASES is 'all', only those
run in bfloat16: what it could break, a missing cast or a sum in half precision, is in the code that
all cases of a test share.
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
# Its banks are float32 in any dtype, which its test refuses.
NOT_IN_BFLOAT16 = "test_crd.py"

_folder = Path(os.environ["ERRORS"])
_file = _folder / f"losses-{os.getpid()}.jsonl"
_current = {"name": "", "dtype": ""}
_read = golden.loss


def root() -> Path:
    """The folder of the golden numbers that was given."""
    return Path(os.environ["GOLDEN"])


def loss(name: str) -> golden.Loss:
    """Reads a golden loss; comparisons from here on are of it."""
    _current["name"] = name
    return _read(name)


def assert_close(actual, expected, tolerance: float | None = None) -> None:
    """Records the largest difference over the largest absolute value."""
    del tolerance
    actual, expected = (np.asarray(x).astype(np.float64) for x in (actual, expected))
    assert actual.shape == expected.shape
    difference = np.abs(actual - expected).max(initial=0)
    case = _current["name"]
    family = re.sub(r"(_n?\d+)+$", "", case)
    error = float(difference / (np.abs(expected).max(initial=0) or 1))
    record({"dtype": _current["dtype"], "family": family, "case": case, "error": error})


def compare(actual, expected, dtype) -> None:
    """The same; values may be of more precision than `dtype`, as losses are."""
    del dtype
    assert_close(actual, expected)


def record(line: dict) -> None:
    """Appends a line to this process's file."""
    with _file.open("a") as file:
        file.write(json.dumps(line) + "\n")


golden.root, golden.loss = root, loss
golden.assert_close, golden.compare = assert_close, compare


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc) -> None:
    """Tests of any dtype run in these."""
    if "dtype" in metafunc.fixturenames:
        values, ids = list(DTYPES.values()), list(DTYPES)
        mark = pytest.mark.parametrize("dtype", values, indirect=True, ids=ids)
        metafunc.definition.add_marker(mark)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items) -> None:
    """Of the tests, those of golden arrays in any dtype; the first cases first."""
    chosen, later, left_out, seen = [], [], [], set()
    for item in items:
        if "dtype" not in item.fixturenames or not _is_golden(item):
            continue
        test = item.path, item.originalname, _dtype(item)
        if _dtype(item) == "bfloat16" and item.path.name == NOT_IN_BFLOAT16:
            continue
        if test not in seen:
            chosen.append(item)
        elif _dtype(item) == "bfloat16" and os.environ["CASES"] != "all":
            left_out.append(item)
        else:
            later.append(item)
        seen.add(test)
    chosen += later
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen
    names = {"chosen": [_name(item) for item in chosen], "left_out": [_name(x) for x in left_out]}
    (_folder / f"collected-{os.getpid()}.json").write_text(json.dumps(names))


def _is_golden(item) -> bool:
    return any(isinstance(value, str) for value in item.callspec.params.values())


def _case(item) -> str:
    return next(value for value in item.callspec.params.values() if isinstance(value, str))


def _dtype(item) -> str:
    return np.dtype(item.callspec.params["dtype"]).name


def _name(item) -> str:
    return f"{_case(item)} {_dtype(item)}"


def pytest_runtest_setup(item) -> None:
    _current.update(name=_case(item), dtype=_dtype(item))


def pytest_runtest_teardown(item) -> None:
    record({"done": _name(item)})
