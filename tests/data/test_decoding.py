"""Threads and worker processes that load batches: order, failures, endings."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kdjax.data import decoding
from kdjax.errors import UserError

ROWS = np.arange(20).reshape(5, 4)

# Reads a batch, then ends in one of several ways.
PROGRAM = """
import multiprocessing, os, signal, sys
import numpy as np
from kdjax.data import decoding

def number(item):
    return {"number": np.int32(item)}

if __name__ == "__main__":
    batches = decoding.load_batches(np.arange(20).reshape(10, 2), number, workers=1)
    next(batches)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    if sys.argv[1] == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError("an error")
"""


def number(item):
    return {"number": np.int32(item), "square": np.full((2, 3), item**2, np.uint16)}


def number_but(item):
    """Fails at three numbers."""
    if item == 6:
        raise UserError("six: unreadable")
    if item == 10:
        raise KeyError("ten")
    if item == 14:
        os.kill(os.getpid(), signal.SIGKILL)
    return number(item)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_in_order(workers):
    batches = list(decoding.load_batches(ROWS, number, workers))
    assert len(batches) == 5
    for row, batch in zip(ROWS, batches, strict=True):
        assert batch["number"].dtype == np.int32 and batch["square"].dtype == np.uint16
        np.testing.assert_array_equal(batch["number"], row)
        expected = np.broadcast_to((row**2)[:, None, None], (4, 2, 3))
        np.testing.assert_array_equal(batch["square"], expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_no_rows(workers):
    batches = decoding.load_batches(ROWS[:0], number, workers)
    assert list(batches) == []
    batches.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_items(workers):
    batches = decoding.load_batches(ROWS, number_but, workers)
    assert next(batches)["number"].tolist() == [0, 1, 2, 3]
    with pytest.raises(UserError, match="six: unreadable"):
        next(batches)
    batches = decoding.load_batches(ROWS[2:], number_but, workers)
    with pytest.raises((KeyError, RuntimeError), match="ten"):
        next(batches)


def test_a_worker_that_is_ended_from_outside():
    batches = decoding.load_batches(ROWS[[0, 3]], number_but, 1)
    next(batches)
    with pytest.raises(UserError, match=r"config\.data\.workers was ended from outside"):
        next(batches)


def test_buffers_larger_than_the_memory(monkeypatch):
    monkeypatch.setattr("kdjax.data.available_memory.available_bytes", lambda: 79)
    with pytest.raises(UserError, match=r"config\.data\.workers=1: buffers needs"):
        next(decoding.load_batches(ROWS, number, 1))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks processes up in /proc")
def test_nothing_is_left_of_workers(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    programs = {
        ending: subprocess.Popen(
            [sys.executable, tmp_path / "program.py", ending],
            env={"PYTHONPATH": str(Path(decoding.__file__).parents[2])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for ending in ("error", "SIGKILL")
    }
    pids = []
    for ending, program in programs.items():
        with program:
            output, errors = program.communicate(timeout=60)
        pids += output.split()
        assert program.returncode != 0 and len(output.split()) == 1
        assert "leaked" not in errors and errors.count("Traceback") == (ending == "error")
    deadline = time.monotonic() + 20
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.05)
    for program in programs.values():
        assert not list(Path("/dev/shm").glob(f"*{program.pid}*"))


def _runs(pid):
    status = Path("/proc") / pid / "stat"
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
