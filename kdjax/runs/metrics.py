"""Metrics to files: `metrics.jsonl` and `metrics.csv` always, TensorBoard where it is installed."""

import csv
import importlib.util
import json
import os
import sys
from pathlib import Path

import jax

from kdjax.errors import UserError


def say(line: str) -> None:
    """Prints a line for the user, once for all processes."""
    if jax.process_index() == 0:
        print(line, flush=True)


def write_atomically(path: Path, text: str) -> None:
    """Writes a file that is either the old one or the new one, whenever the process is killed."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


class MetricsWriter:
    """Appends rows keyed by step to `metrics.jsonl`; rewrites `metrics.csv` at every flush.

    Args:
      workdir: where the files are.
      step: the step training goes on from; rows of later steps, left by a process that was killed
        after its last checkpoint, are dropped.
    """

    def __init__(self, workdir: Path, step: int):
        self._jsonl = workdir / "metrics.jsonl"
        self._csv = workdir / "metrics.csv"
        self._rows = [row for row in read(self._jsonl) if row["step"] <= step]
        lines = "".join(json.dumps(row) + "\n" for row in self._rows)
        write_atomically(self._jsonl, lines)
        self._tensorboard = _tensorboard(workdir, step)

    def write(self, row: dict[str, float]) -> None:
        """Appends one row; it must have 'step'."""
        self._rows.append(row)
        with open(self._jsonl, "a") as file:
            file.write(json.dumps(row) + "\n")
        if self._tensorboard is not None:
            for name, value in row.items():
                if name != "step":
                    self._tensorboard.add_scalar(name, value, row["step"])

    def flush(self) -> None:
        """Brings `metrics.csv` up to date: one column per metric, one line per row."""
        names = list(dict.fromkeys(name for row in self._rows for name in row))
        temporary = self._csv.with_name(self._csv.name + ".tmp")
        with open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._rows)
        os.replace(temporary, self._csv)
        if self._tensorboard is not None:
            self._tensorboard.flush()

    def close(self) -> None:
        """Flushes and closes the files."""
        self.flush()
        if self._tensorboard is not None:
            self._tensorboard.close()


def read(path: Path) -> list[dict[str, float]]:
    """The rows of a `metrics.jsonl`; a last line cut short by a kill is left out.

    Raises:
      UserError: a line is not what was written.
    """
    if not path.exists():
        return []
    lines = path.read_text(errors="replace").splitlines(keepends=True)
    try:
        return [json.loads(line) for line in lines if line.endswith("\n")]
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); mend or remove it") from error


def _tensorboard(workdir: Path, step: int):
    if importlib.util.find_spec("tensorboardX") is None:
        return None
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1, write_to_disk=True)


class Progress:
    """A bar with images per second, on a terminal and in process 0; nothing elsewhere."""

    def __init__(self, epoch: int, images: int, done: int):
        self._bar = None
        if jax.process_index() == 0 and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                desc=f"epoch {epoch}",
                total=images,
                initial=done,
                unit="img",
                unit_scale=True,
                leave=False,
            )

    def advance(self, images: int) -> None:
        """Counts images as done."""
        if self._bar is not None:
            self._bar.update(images)

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()
