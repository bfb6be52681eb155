"""The list of tests of the second tier and how it is made."""

import functools

from tests import second_tier
from tests.tiny_runs import ROOT

LOG = """
   4.00s call     tests/a.py::test_a[long]
   0.50s setup    tests/a.py::test_a[long]
   0.80s call     tests/a.py::test_a[two words]
   1.20s call     tests/a.py::test_a[other]
   0.10s call     tests/a.py::test_a[cheap]
   9.00s call     tests/a.py::test_b
   0.20s call     tests/a.py::test_c[1]
   0.20s call     tests/a.py::test_c[2]
"""


def test_the_cheapest_cases_of_a_test_stay():
    leaving = second_tier.second_tier(second_tier.durations(LOG))
    assert leaving == ["tests/a.py::test_a[other]", "tests/a.py::test_a[long]"]


def test_every_line_is_a_test():
    text = functools.cache(lambda path: (ROOT / path).read_text())
    for node in second_tier.listed():
        path, _, function = node.partition("[")[0].partition("::")
        assert f"\ndef {function}(" in text(path), f"{node}: no such test"
