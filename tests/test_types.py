"""What a type checker knows of a program that imports kdjax."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import kdjax
from tests.tiny_runs import ROOT

# What mypy is to say of each line that begins with `reveal_type`, and of the last one.
EXPECTED = (
    "dict[str, float]",
    "fallback=kdjax.models.outputs.Outputs]",
    "fallback=kdjax.methods.method.Method]",
    "numpy.ndarray[",
    'Argument 1 to "load_run" has incompatible type "int"',
)
PROGRAM = """
import kdjax
from kdjax import methods, models

run = kdjax.train("mcl:digits", "runs/digits")
reveal_type(run.evaluate(split="test"))
network = kdjax.networks.load("runs/digits")
reveal_type(network.apply)
reveal_type(methods.mcl(models.Cohort(()), alpha=0.1))
reveal_type(kdjax.load_run("runs/digits").history()["mean/top1"])
kdjax.load_run(3)
"""


def test_all_that_is_imported_late_is_known_to_type_checkers():
    source = (ROOT / "kdjax" / "__init__.py").read_text()
    known = set(re.findall(r"^    from \S+ import \w+ as (\w+)$", source, re.MULTILINE))
    assert known == set(kdjax.__all__) - {"__version__"}


@pytest.mark.slow
def test_a_program_is_checked_against_the_hints(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = (sys.executable, "-m", "mypy", f"--config-file={ROOT / 'setup.cfg'}")
    result = subprocess.run(
        [*command, f"--cache-dir={tmp_path / 'cache'}", str(tmp_path / "program.py")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    lines = [line for line in result.stdout.splitlines() if "program.py:" in line]
    assert len(lines) == len(EXPECTED), result.stdout
    for line, expected in zip(lines, EXPECTED, strict=True):
        assert expected in line
