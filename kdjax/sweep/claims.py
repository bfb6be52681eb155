"""Which process runs what, agreed on through files of a folder that all of them see.

A claim is a file that exactly one process can create. While its holder is at work it renews the
file's time; a claim that has not been renewed for some time is stale, and exactly one process can
take it over, by creating the file of the next number. Times are those of the file system, so that
the clocks of the machines need not agree.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from kdjax.runs import files

STALE_AFTER = 300.0  # seconds without renewal
_RENEWALS = 10  # in that time
_POLL = 0.1  # seconds


class Claim:
    """What a process has claimed.

    Attributes:
      lost: set when another process has taken the claim over, because it was not renewed in time.
    """

    def __init__(self, path: Path, successor: Path):
        self.lost = threading.Event()
        self._path = path
        self._successor = successor

    def renew(self) -> None:
        """Renews the claim, or sets `lost`."""
        if self._successor.exists():
            self.lost.set()
        else:
            with contextlib.suppress(FileNotFoundError):
                os.utime(self._path)

    def release(self) -> None:
        """Lets the next process that asks have the claim, without waiting until it is stale."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._path, (0, 0))


def take(folder: Path, name: str, *, stale_after: float = STALE_AFTER) -> Claim | None:
    """Claims a name, or returns None where another process holds it.

    Args:
      folder: the folder of all claims.
      name: what is claimed; a file name.
      stale_after: seconds after which a claim that is not renewed may be taken over.

    Raises:
      UserError: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number = _last(folder, name)
        if _fresh(folder, name, number, stale_after):
            return None
        mine = _file(folder, name, number + 1)
        try:
            with mine.open("x") as file:
                file.write(f"{socket.gethostname()}, process {os.getpid()}\n")
        except FileExistsError:
            return None
        return Claim(mine, _file(folder, name, number + 2))
    except OSError as error:
        raise files.cannot_write(folder, error) from error


def held(folder: Path, name: str, *, stale_after: float = STALE_AFTER) -> bool:
    """Whether a process holds the claim of a name."""
    return folder.is_dir() and _fresh(folder, name, _last(folder, name), stale_after)


def holder(folder: Path, name: str) -> str:
    """The machine and process that claimed a name last; empty if none did."""
    paths = sorted(_claims(folder, name), key=lambda path: int(path.suffix[1:]))
    return paths[-1].read_text().strip() if paths else ""


@contextlib.contextmanager
def kept(claim: Claim, *, stale_after: float = STALE_AFTER) -> Iterator[None]:
    """Renews a claim in a thread while the block runs, and releases it afterwards."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(stale_after / _RENEWALS) and not claim.lost.is_set():
            with contextlib.suppress(OSError):  # a file server that does not answer: tried again
                claim.renew()

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if not claim.lost.is_set():
            claim.release()


@contextlib.contextmanager
def exclusive(folder: Path, name: str) -> Iterator[None]:
    """Waits until the name can be claimed, and keeps the claim while the block runs.

    Raises:
      UserError: the folder cannot be written to.
    """
    while (claim := take(folder, name)) is None:
        time.sleep(_POLL)
    with kept(claim):
        yield


def _last(folder: Path, name: str) -> int:
    """The number of a name's last claim; 0 if nobody claimed it."""
    return max((int(path.suffix[1:]) for path in _claims(folder, name)), default=0)


def _claims(folder: Path, name: str) -> list[Path]:
    """The files of a name's claims, in no order."""
    paths = (path for path in folder.iterdir() if path.stem == name)
    return [path for path in paths if path.suffix[1:].isdecimal()]


def _fresh(folder: Path, name: str, number: int, stale_after: float) -> bool:
    """Whether the claim of this number, 0 for none, was renewed in time."""
    return number > 0 and _age(folder, _file(folder, name, number)) < stale_after


def _file(folder: Path, name: str, number: int) -> Path:
    return folder / f"{name}.{number}"


def _age(folder: Path, path: Path) -> float:
    """Seconds since the file was renewed, by the file system's clock."""
    probe = folder / f".now_{uuid.uuid4().hex}"
    probe.touch()
    try:
        return probe.stat().st_mtime - path.stat().st_mtime
    finally:
        probe.unlink()
