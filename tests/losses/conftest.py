"""Golden losses hold in float64 and in float32."""

import jax
import numpy as np
import pytest


@pytest.fixture(params=[np.float64, np.float32], ids=["float64", "float32"])
def dtype(request):
    with jax.enable_x64(request.param is np.float64):
        yield request.param


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Every golden case runs in float64; in float32 the first of each test, the others if slow.

    Compiling a case is most of its time, and what float32 could break, a missing upcast or an
    overflow, is in the code that all cases of a test share.
    """
    seen = set()
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        if params.get("dtype") is np.float32 and "name" in params:
            test = (item.path, item.originalname)
            if test in seen:
                item.add_marker(pytest.mark.slow)
            seen.add(test)
