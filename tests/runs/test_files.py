"""Files written beside their place: old, new, or not there, but never half."""

import errno
import linecache
import sys

import pytest

from kdjax.errors import UserError
from kdjax.runs import files


def fail_with(monkeypatch, number):
    def fail(descriptor):
        raise OSError(number, "")

    monkeypatch.setattr("os.fsync", fail)


def test_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write_atomically(path, "old")
    fail_with(monkeypatch, errno.EIO)
    with pytest.raises(UserError, match="file cannot be written: Input/output error"):
        files.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_has_a_way_out(tmp_path, monkeypatch, number):
    fail_with(monkeypatch, number)
    with pytest.raises(UserError, match=r"disk is full .*; make room and run the same command"):
        files.write_atomically(tmp_path / "file", b"new")


def test_file_that_is_not_to_be_replaced(tmp_path):
    path = tmp_path / "file"
    files.write_atomically(path, "old", replace=False)
    with pytest.raises(UserError, match="file exists; name another"):
        files.write_atomically(path, "new", replace=False)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_file_that_another_process_writes(tmp_path):
    path = tmp_path / "file"
    with files.writing(path) as temporary:
        temporary.write_text("first")
        with pytest.raises(UserError, match=r"another process writes .*file; wait"):
            files.write_atomically(path, "second")
    assert path.read_text() == "first"


def test_what_a_killed_process_left_is_overwritten(tmp_path):
    path = tmp_path / "file"
    with files.writing(path) as temporary:
        temporary.write_text("whole")
    temporary.write_text("a much longer half")
    files.write_atomically(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def interrupt_at(number):
    """Raises KeyboardInterrupt before the `number`-th line of `writing`, as a signal may."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        del argument
        if frame.f_code.co_name != "writing" or frame.f_code.co_filename != files.__file__:
            return None
        cleans_up = "_discard" in linecache.getline(files.__file__, frame.f_lineno)
        if event == "line" and not cleans_up:
            count += 1
            if count == number:
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)


# A signal between the end of a block and the closing of its file leaves that to the collector.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("before", [None, "old"])
def test_signal_at_any_line_leaves_the_old_file_or_the_new_one(tmp_path, before):
    path, number, outcomes = tmp_path / "file", 0, []
    tracing = sys.gettrace()
    while outcomes.count("ended") == 0:
        number += 1
        path.unlink(missing_ok=True)
        if before is not None:
            path.write_text(before)
        interrupt_at(number)
        try:
            files.write_atomically(path, "new")
            outcomes.append("ended")
        except KeyboardInterrupt:
            outcomes.append("interrupted")
        finally:
            sys.settrace(tracing)
        content = path.read_text() if path.exists() else None
        assert content in (before, "new")
        assert [each.name for each in tmp_path.iterdir()] == (["file"] if content else [])
    assert len(outcomes) > 8 and content == "new"


def test_refusal_is_found_in_the_words_of_other_libraries():
    error = RuntimeError("a thread failed")
    error.__cause__ = ValueError("INTERNAL: writing chunk: No space left on device [source]")
    assert files.is_full(error)
    assert files.refusal(ValueError("shapes differ")) is None
