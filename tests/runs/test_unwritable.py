"""Writes that the system really refuses: files grow too large, directories may not be written."""

import contextlib
import errno
import os
import resource
import tempfile
from pathlib import Path

import numpy as np
import pytest

from kdjax import config as configs
from kdjax.errors import UserError
from kdjax.runs import files, metrics
from kdjax.runs import workdir as workdirs
from kdjax.runs.checkpoints import Checkpoints
from kdjax.runs.metrics import MetricsWriter

_NOBODY = 65534
_TOO_LARGE, _REFUSED = os.strerror(errno.EFBIG), os.strerror(errno.EACCES)


@contextlib.contextmanager
def file_size_limit(size):
    """As `ulimit -f`: no file grows beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def unwritable(directory):
    """Nothing can be made in a directory; root, who may write anywhere, becomes nobody."""
    user = os.geteuid()
    directory.chmod(0o555)
    if user == 0:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(user)
        directory.chmod(0o755)


@pytest.fixture
def directory():
    """One that every user can reach, which pytest's are not."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def checkpoints_with_one_step(directory):
    checkpoints = Checkpoints(directory, "top1")
    checkpoints.save(1, {"w": np.zeros(3, np.float32)}, {"top1": 0.5}, {})
    checkpoints.wait()
    return checkpoints


def fails_to_save(checkpoints, reason, refusing):
    large = {"w": np.random.default_rng(0).normal(size=50_000).astype(np.float32)}
    with refusing, pytest.raises(UserError, match=f"cannot be written: {reason}"):
        checkpoints.save(2, large, {}, {})
        checkpoints.wait()
    assert checkpoints.load().step == 1
    checkpoints.save(2, large, {}, {})
    assert checkpoints.load().step == 2
    checkpoints.close()


def test_checkpoint_beyond_the_limit_of_file_sizes(directory):
    fails_to_save(checkpoints_with_one_step(directory), _TOO_LARGE, file_size_limit(20_000))


def test_checkpoint_in_a_directory_that_cannot_be_written(directory):
    fails_to_save(checkpoints_with_one_step(directory), _REFUSED, unwritable(directory))


def test_metrics_beyond_the_limit_of_file_sizes(directory):
    writer = MetricsWriter(directory, 0)
    writer.write({"step": 1, "loss": 0.5})
    with file_size_limit(40), pytest.raises(UserError, match=f"jsonl cannot be .*{_TOO_LARGE}"):
        writer.write({"step": 2, "loss": 0.25})
    writer.close()
    rows = metrics.read(directory / "metrics.jsonl")  # the line that was cut is left out
    assert [row["step"] for row in rows] == [1]
    MetricsWriter(directory, 1).close()
    assert (directory / "metrics.jsonl").read_text() == '{"step": 1, "loss": 0.5}\n'


def test_metrics_in_a_directory_that_cannot_be_written(directory):
    with unwritable(directory), pytest.raises(UserError, match=f"jsonl cannot be .*{_REFUSED}"):
        MetricsWriter(directory, 0)


def test_files_beyond_the_limit_of_file_sizes(directory):
    files.write_atomically(directory / "old", "old")
    with file_size_limit(40), pytest.raises(UserError, match=f"old cannot be .*{_TOO_LARGE}"):
        files.write_atomically(directory / "old", 100 * "new")
    assert [path.name for path in directory.iterdir()] == ["old"]
    assert (directory / "old").read_text() == "old"


def test_run_in_a_directory_that_cannot_be_written(directory):
    for workdir in (directory, directory / "run"):
        with unwritable(directory), pytest.raises(UserError, match=f"cannot be .*{_REFUSED}"):
            workdirs.claim(workdir, configs.base())
    assert not list(directory.iterdir())
