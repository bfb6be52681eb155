"""Console output: lines for the user, and a progress bar on a terminal."""

from __future__ import annotations

import os
import signal
import sys

from kdjax.errors import UserError


class OutputClosed(SystemExit):
    """Ends the process with the exit status of SIGPIPE: nothing reads its output any more."""

    def __init__(self):
        super().__init__(128 + signal.SIGPIPE)


def say(line: str) -> None:
    """Prints a line for the user, in process 0 only.

    Raises:
      OutputClosed: the reader of the output, such as `head`, has ended.
      UserError: the output goes to a file that cannot be written.
    """
    import jax  # late: the command line prints before there are processes

    if jax.process_index() == 0:
        print_line(line)


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
    """A progress bar with images per second; shown on a terminal and in process 0 only."""

    def __init__(self, epoch: int, images: int, done: int):
        import jax

        self._bar = None
        if jax.process_index() == 0 and sys.stderr is not None and sys.stderr.isatty():
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
        """Advances the bar by a number of images."""
        if self._bar is not None:
            self._bar.update(images)

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()
