"""Handlers of the signals that end a command. They import no jax, to be in place from the start."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

# Sent when the terminal closes, by Ctrl-C, and by schedulers or `kill`.
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)

Handler = Callable[[int, FrameType | None], None]


class Stopped(SystemExit):
    """Ends the process with the exit status of a signal, 128 + its number.

    Attributes:
      number: the number of the signal.
      told: whether a message has been printed already.
    """

    code: int
    told = False

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.number = number

    @property
    def line(self) -> str:
        """The message for the user."""
        return f"stopped by {name(self.number)}; nothing was left half-written"


def name(number: int) -> str:
    """The name of a signal, such as 'SIGTERM'."""
    return signal.Signals(number).name


@contextlib.contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Installs `handler` for the signals that end a command, while the block runs.

    Signals that the process was started to ignore, as by `nohup`, stay ignored. Outside the main
    thread, where Python handles no signals, this has no effect.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    handled_here = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]
    for number in handled_here:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in handled_here:
            signal.signal(number, before[number])


def stop(number: int, frame: FrameType | None) -> None:
    """Signal handler that raises `Stopped`; a second signal ends the process at once.

    Raises:
      Stopped: always.
    """
    del frame
    for other in SIGNALS:
        if signal.getsignal(other) is stop:
            signal.signal(other, end_at_once)
    raise Stopped(number)


def end_at_once(number: int, frame: FrameType | None = None) -> None:
    """Signal handler that ends the process without cleaning up."""
    del frame
    if sys.stderr is not None:
        os.write(2, f"stopped by {name(number)}\n".encode())
    os._exit(128 + number)
