"""Several devices prune as one does."""

import pytest

from kdjax.parallel import BACKENDS
from tests import tiny_runs as runs


@pytest.mark.slow
def test_four_devices_and_one_end_with_the_same_bits():
    (printed,) = runs.finish(runs.start(module="tests.pruning.on_devices", devices=4))
    assert printed.split() == ["4", *(word for name in BACKENDS for word in (name, "True"))]
