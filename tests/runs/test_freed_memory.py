"""Freed memory that glibc keeps, in processes of their own: the tests' own keeps what it has."""

import os
import subprocess
import sys

import pytest

from kdjax.runs import freed_memory

_PROGRAM = """
import logging, os, sys
from pathlib import Path
from kdjax.runs import freed_memory
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
kept = freed_memory.keep(os.environ)
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
before = resident()
block = bytearray(100 << 20)
block[::4096] = b"1" * len(block[::4096])
del block
held = resident() - before
freed_memory.give_back()
print(kept, held, resident() - before)
"""


def memory_after(**environment) -> tuple[bool, int, int, str]:
    """Whether it is kept, and the log; between them how many MiB of the 100 that were freed are
    still held, before and after they are given back."""
    clean = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    result = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env=clean | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    kept, held, rest = result.stdout.split()
    return kept == "True", int(held), int(rest), result.stderr


@pytest.mark.skipif(not freed_memory._is_glibc(), reason="of glibc")
def test_a_cpu_s_process_keeps_what_it_frees_until_an_epoch_ends():
    kept, held, rest, _ = memory_after(JAX_PLATFORMS="cpu")
    assert kept and held >= 100 and rest < 50


@pytest.mark.skipif(not freed_memory._is_glibc(), reason="of glibc")
@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"JAX_PLATFORMS": "cuda,cpu"}, "an accelerator's"),
        ({"JAX_PLATFORMS": "cpu", "MALLOC_ARENA_MAX": "1"}, "as MALLOC_ARENA_MAX says"),
        ({"GLIBC_TUNABLES": "glibc.malloc.tcache_count=1"}, "as GLIBC_TUNABLES says"),
    ],
)
def test_what_the_user_tunes_and_accelerators_are_left_alone(environment, reason):
    kept, held, _, log = memory_after(**environment)
    assert not kept and held < 50 and reason in log


def test_another_c_library_is_left_alone(monkeypatch, caplog):
    def unknown(name):
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "confstr", unknown, raising=False)
    monkeypatch.setattr(freed_memory.ctypes, "CDLL", None)  # must not be called
    with caplog.at_level("DEBUG", "kdjax"):
        assert not freed_memory.keep({})
    assert "not glibc" in caplog.text
