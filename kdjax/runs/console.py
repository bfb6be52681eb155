"""What a run prints: lines for the user, and a progress bar on a terminal."""

from __future__ import annotations

import os
import signal
import sys

from kdjax.errors import UserError


class OutputClosed(SystemExit):
    """Ends the process, as a shell reports one that SIGPIPE ended: nobody reads its output."""

    def __init__(self):
        super().__init__(128 + signal.SIGPIPE)


def say(line: str) -> None:
    """Prints a line for the user, once for all processes.

    Raises:
      OutputClosed: what read the output, as `head` does, has ended.
      UserError: the output goes to a file that cannot be written.
    """
    import jax  # late: the command line prints before there are processes

    if jax.process_index() == 0:
        print_line(line)


def print_line(line: str) -> None:
    """Prints a line from whichever process calls it; see `say`."""
    try:
        print(line, flush=True)
    except BrokenPipeError as error:
        discard_output()
        raise OutputClosed from error
    except OSError as error:
        discard_output()
        raise UserError(f"standard output cannot be written: {error.strerror}") from error


def discard_output() -> None:
    """Sends what is still printed nowhere, so that the interpreter's last flush does not fail."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


class Progress:
    """A bar with images per second, on a terminal and in process 0; nothing elsewhere."""

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
        """Counts images as done."""
        if self._bar is not None:
            self._bar.update(images)

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()
