"""Console output: lines for the user, which a run also logs, and a progress bar."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from kdjax.errors import UserError
from kdjax.runs import files

_LOGS: list[Path] = []  # the innermost comes last


class OutputClosed(SystemExit):
    """Ends the process with the exit status of SIGPIPE: nothing reads its output any more."""

    code: int

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGPIPE)


def say(line: str) -> None:
    """Prints a line for the user, in process 0 only, and adds it to the log of `logged`.

    Raises:
      OutputClosed: the reader of the output, such as `head`, has ended.
      UserError: the output or the log cannot be written.
    """
    import jax  # late: the command line prints before there are processes

    if jax.process_index() == 0:
        if _LOGS:
            _log(_LOGS[-1], line)
        print_line(line)


@contextlib.contextmanager
def logged(path: Path) -> Iterator[None]:
    """Adds the lines that `say` prints to a file, with date and time, while the block runs.

    Args:
      path: the file; made at the first line if missing. Its directory must be there.
    """
    _LOGS.append(path)
    try:
        yield
    finally:
        _LOGS.pop()


def _log(path: Path, line: str) -> None:
    try:
        with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n")
    except OSError as error:
        raise files.cannot_write(path, error) from error


def print_line(line: str) -> None:
    """Prints a line in every process that calls it; `say` prints in process 0 only.

    Raises:
      OutputClosed: the reader of the output, such as `head`, has ended.
      UserError: the output goes to a file that cannot be written.
    """
    try:
        print(line, flush=True)
    except BrokenPipeError as error:
        discard_output()
        raise OutputClosed from error
    except OSError as error:
        discard_output()
        raise UserError(f"standard output cannot be written: {error.strerror}") from error


def discard_output() -> None:
    """Redirects standard output to the null device, so that the flush at exit does not fail."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


class Progress:
    """A progress bar of an epoch, with the loss and the time that the run still takes.

    It is shown on a terminal and in Jupyter, in process 0 only.

    Args:
      epoch: the epoch, counted from 1.
      epochs: those of the whole run.
      images: the number of images of an epoch.
      done: how many of them were trained on before.
    """

    def __init__(self, epoch: int, epochs: int, images: int, done: int):
        import jax

        self._bar, self._later = None, (epochs - epoch) * images
        if jax.process_index() == 0 and sys.stderr is not None and _shows_bars(sys.stderr):
            from tqdm.auto import tqdm

            self._bar = tqdm(
                desc=f"epoch {epoch}/{epochs}",
                total=images,
                initial=done,
                unit="img",
                unit_scale=True,
                leave=False,
            )

    def advance(self, images: int, loss: float | None = None) -> None:
        """Advances the bar by a number of images, and shows a loss, None if none is known yet."""
        if self._bar is None:
            return
        shown = [] if loss is None else [f"loss {loss:.4f}"]
        rate = self._bar.format_dict["rate"]
        if rate:
            to_go = self._bar.total - self._bar.n - images + self._later
            shown.append(f"run ends in {self._bar.format_interval(to_go / rate)}")
        self._bar.set_postfix_str(", ".join(shown), refresh=False)
        self._bar.update(images)

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()


def _shows_bars(stream: TextIO) -> bool:
    """Whether a stream is a terminal's, or goes to a cell of Jupyter."""
    return stream.isatty() or type(stream).__module__.startswith("ipykernel.")
