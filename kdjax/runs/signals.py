"""The signals that end a command. Nothing here imports jax: it serves from the first moment on."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

# The terminal closes; Ctrl-C; a scheduler, or `kill`.
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)

Handler = Callable[[int, FrameType | None], None]


class Stopped(SystemExit):
    """Ends the process as a shell reports one that a signal ended: status 128 + its number.

    Attributes:
      number: of the signal.
      told: whether the user has been told already.
    """

    told = False

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.number = number

    @property
    def line(self) -> str:
        """What the user is told."""
        return f"stopped by {name(self.number)}; nothing was left half-written"


def name(number: int) -> str:
    """Such as 'SIGTERM'."""
    return signal.Signals(number).name


@contextlib.contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Calls `handler` for the signals that end a command, while the block runs.

    Those that the command was started to ignore, as `nohup` does, stay ignored. Outside the main
    thread, where Python handles no signals, nothing changes.
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
    """A handler: raises `Stopped`; a second signal ends the process at once."""
    del frame
    for each in SIGNALS:
        if signal.getsignal(each) is stop:
            signal.signal(each, end_at_once)
    raise Stopped(number)


def end_at_once(number: int, frame: FrameType | None = None) -> None:
    """A handler: ends the process without further steps."""
    del frame
    if sys.stderr is not None:
        os.write(2, f"stopped by {name(number)}\n".encode())
    os._exit(128 + number)
