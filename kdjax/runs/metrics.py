"""Metrics files: `metrics.jsonl`, and TensorBoard events where tensorboardX is installed."""

from __future__ import annotations

import collections
import importlib.util
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kdjax.errors import UserError
from kdjax.runs import files, schema
from kdjax.runs.schema import Damaged
from kdjax.runs.tensorboard import EventWriter

_MAX_ROW = 2**20  # bytes

# A row in the form that it is written in, matched without parsing: a long file is read fast.
_ROW = re.compile(
    rb'\{"step": (0|[1-9]\d{0,14})'
    rb'(?:, "[^"\\\x00-\x1f\x7f-\xff]+": -?(?:0|[1-9]\d{0,99})(?:\.\d+)?(?:e[+-]?\d{1,2})?)*\}\n'
)
_FIELDS = {"step": schema.integer(0, 10**15 - 1)}


class MetricsWriter:
    """Appends rows keyed by step to `metrics.jsonl`.

    Args:
      workdir: the directory of the file.
      step: the step from which training continues; rows of later steps, written by a process that
        was killed after its last checkpoint, are removed.
      others: further writers of rows, with `write` and `close`.

    Raises:
      UserError: the file is damaged or cannot be written.
    """

    def __init__(self, workdir: Path, step: int, others: Sequence[Any] = ()):
        self._path = workdir / "metrics.jsonl"
        size = 0
        if self._path.exists():
            size = sum(len(line) for number, line in _lines(self._path) if number <= step)
        try:
            with open(self._path, "ab") as file:
                if size < file.tell():
                    file.truncate(size)
        except OSError as error:
            raise files.cannot_write(self._path, error) from error
        tensorboard = _tensorboard(workdir, step)
        self._others = [*others] if tensorboard is None else [tensorboard, *others]

    def write(self, row: dict[str, float]) -> None:
        """Appends one row; it must have 'step'.

        Raises:
          UserError: a value is not finite, or the file cannot be written.
        """
        bad = [name for name, value in row.items() if schema.number(value) is not None]
        if bad:
            raise UserError(f"not finite at step {row['step']}: {', '.join(bad)}")
        line = json.dumps({"step": row["step"], **row}) + "\n"
        try:
            with open(self._path, "ab") as file:
                file.write(line.encode())
        except OSError as error:
            raise files.cannot_write(self._path, error) from error
        for other in self._others:
            other.write(row)

    def close(self) -> None:
        """Closes TensorBoard's file and the other writers."""
        for other in self._others:
            other.close()


def read(path: Path) -> list[dict[str, float]]:
    """The rows of a `metrics.jsonl`, without a last line that was written incompletely.

    Raises:
      UserError: a line is damaged.
    """
    return [json.loads(line) for _, line in _lines(path)] if path.exists() else []


def last(path: Path) -> dict[str, float] | None:
    """The last complete row of a `metrics.jsonl`, or None if there is none.

    Raises:
      UserError: a line is damaged.
    """
    lines = collections.deque(_lines(path) if path.exists() else (), maxlen=1)
    return json.loads(lines[0][1]) if lines else None


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The steps and bytes of the complete lines of the file.

    Raises:
      UserError: a line is damaged.
    """
    before, number = -1, 0
    try:
        schema.check_regular(path)
        with open(path, "rb") as file:
            while line := file.readline(_MAX_ROW):
                number += 1
                if not line.endswith(b"\n") and len(line) < _MAX_ROW:
                    return
                match = _ROW.fullmatch(line)
                step = int(match[1]) if match else _checked_step(line)
                if step <= before:
                    raise Damaged(f"step {step} stands after step {before}")
                before = step
                yield step, line
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except Damaged as error:
        raise UserError(
            f"{path} is damaged: line {number}: {error}; mend that line, or move the file away: "
            "training goes on without its rows"
        ) from error


def _checked_step(line: bytes) -> int:
    """The step of a row that is not in the form that `MetricsWriter` writes."""
    row = schema.checked(schema.parse(line), _FIELDS, "the row")
    schema.checked(row, dict.fromkeys(row, schema.number))
    return row["step"]


def _tensorboard(workdir: Path, step: int) -> EventWriter | None:
    if importlib.util.find_spec("tensorboardX") is None:
        return None
    return EventWriter(workdir / "tensorboard", step)
