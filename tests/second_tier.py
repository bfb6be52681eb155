"""Which tests are marked slow because cheaper ones of their kind run by default.

    pytest --durations=0 --durations-min=0.02 -m "" > LOG
    python -m tests.second_tier LOG

writes the cases of parametrized tests anew into `second_tier.txt`: of a test whose cases take more
than `LEAST_SECONDS` together, the cheapest ones stay in the default run, up to a share of the
time. Whole functions (lines without a case) are chosen by hand and kept.
"""

from __future__ import annotations

import collections
import re
import sys
from pathlib import Path

LIST = Path(__file__).with_suffix(".txt")
LEAST_SECONDS = 0.6
SHARE = 0.15  # of a test's time that stays in the default run
CHEAP_SECONDS = 0.12  # a case below it always stays

# One case for every method, every example, every recipe and every fault: all of them stay.
WHOLE = {
    "test_its_config_makes_a_loss",
    "test_examples_run",
    "test_recipe",
    "test_a_run_that_shrinks_is_the_masked_run",
    "test_an_interrupted_run_ends_as_the_whole_one",
    "test_a_run_follows_its_schedule",
}
_HEAD = "# Marked slow, see second_tier.py, which writes the lines with [case].\n"


def listed() -> list[str]:
    """Node ids, and functions all of whose cases are meant."""
    return [line for line in LIST.read_text().splitlines() if not line.startswith("#")]


def durations(log: str) -> dict[str, float]:
    """Seconds per node id, of set-up, call and tear-down together."""
    seconds = collections.defaultdict(float)
    for value, node in re.findall(
        r"^ *([\d.]+)s (?:call|setup|teardown) +(tests/.*?) *$", log, re.M
    ):
        seconds[node] += float(value)
    return seconds


def second_tier(seconds: dict[str, float]) -> list[str]:
    """The cases that leave the default run."""
    cases = collections.defaultdict(list)
    for node, value in seconds.items():
        function, _, case = node.partition("[")
        if case and function.rpartition("::")[2] not in WHOLE:
            cases[function].append((value, node))
    leaving = []
    for of_one in cases.values():
        total = sum(value for value, _ in of_one)
        kept = 0.0
        for number, (value, node) in enumerate(sorted(of_one)):
            stays = number == 0 or value < CHEAP_SECONDS or kept + value <= SHARE * total
            if total < LEAST_SECONDS or stays:
                kept += value
            else:
                leaving.append(node)
    return leaving


def main(log: str) -> None:
    by_hand = [node for node in listed() if "[" not in node]
    LIST.write_text(_HEAD + "\n".join(sorted({*by_hand, *second_tier(durations(log))})) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).read_text())
