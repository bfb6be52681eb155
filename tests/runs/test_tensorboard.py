"""TensorBoard's event files: what is in them, and how writes fail."""

import os
import resource
import struct

import pytest

from kdjax.errors import UserError
from kdjax.runs.tensorboard import EventWriter

event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2", reason="tensorboardX is missing")


def events(directory):
    """All events of a directory with one file."""
    (path,) = directory.iterdir()
    content, found = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        found.append(event_pb2.Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return found


def test_rows_are_there_before_the_writer_is_closed(tmp_path):
    writer = EventWriter(tmp_path / "events", 6)
    writer.write({"step": 7, "train/loss": 0.5, "mean/top1": 0.25})
    _, version, start, *scalars = events(tmp_path / "events")
    assert (version.step, version.file_version) == (7, "brain.Event:2")
    assert (start.step, start.session_log.status) == (7, event_pb2.SessionLog.START)
    values = [(event.step, v.tag, v.simple_value) for event in scalars for v in event.summary.value]
    assert values == [(7, "train/loss", 0.5), (7, "mean/top1", 0.25)]
    writer.close()


def test_write_that_the_system_refuses(tmp_path):
    writer, before = EventWriter(tmp_path, 0), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(UserError, match=rf"{tmp_path} cannot be written: {os.strerror(27)}"):
            writer.write({"step": 1, "loss": 0.5})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    writer.close()


def test_directory_that_is_a_file(tmp_path):
    (tmp_path / "events").write_text("x")
    with pytest.raises(UserError, match="events cannot be written: File exists"):
        EventWriter(tmp_path / "events", 0)
