"""Scalars to TensorBoard's event files, written before `write` returns."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kdjax.runs import files


class EventWriter:
    """Writes rows of scalars to a new event file, with the package tensorboardX.

    Its `SummaryWriter` hands events to a thread: a write that fails ends that thread, and the
    program waits for it for ever.

    Args:
      directory: created if missing.
      step: the step training goes on from; TensorBoard drops what other files have of later steps.

    Raises:
      UserError: the directory or the file cannot be written.
    """

    def __init__(self, directory: Path, step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        # Absolute: tensorboardX takes what stands before a colon for a protocol.
        self._directory = directory.absolute()
        with self._reporting():
            self._directory.mkdir(parents=True, exist_ok=True)
            self._file = EventsWriter(str(self._directory / "events"), f".{os.getpid()}")
            self._event(step + 1, file_version="brain.Event:2")
            self._event(step + 1, session_log=SessionLog(status=SessionLog.START))
            self._file.flush()

    def write(self, row: Mapping[str, float]) -> None:
        """Writes the scalars of a row; it must have 'step'.

        Raises:
          UserError: the file cannot be written.
        """
        from tensorboardX.summary import scalar

        with self._reporting():
            for name, value in row.items():
                if name != "step":
                    self._event(int(row["step"]), summary=scalar(name, value))
            self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        with self._reporting():
            self._file.close()

    def _event(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._file.write_event(Event(step=step, wall_time=time.time(), **content))

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise files.cannot_write(self._directory, error) from error
