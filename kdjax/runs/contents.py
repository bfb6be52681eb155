"""The kind of content of a directory, and the lock of the process that writes to it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax

from kdjax.errors import UserError
from kdjax.runs import files, schema
from kdjax.runs.checkpoints import saved
from kdjax.runs.console import say

FORMAT = 2  # of directories; format 1 did not record the kind of content
RUN, IMPORTED, COMPACT = "run", "imported network", "compact network"
KINDS = (RUN, IMPORTED, COMPACT)

_FILE = "kdjax.json"
_FIELDS = {"format": schema.integer(1, 2**31)}
_FIELDS_OF_FORMAT = {"kind": schema.one_of(*KINDS)}


@contextlib.contextmanager
def claimed(directory: Path, kind: str, flag: str = "--workdir") -> Iterator[None]:
    """Locks a directory while the block runs, and records the kind of its content.

    Args:
      directory: the directory; created if missing.
      kind: one of `KINDS`.
      flag: the flag that named the directory, for error messages.

    Raises:
      UserError: another process writes to the directory, it has other content, or it cannot be
        written to.
    """
    check_kind(directory, kind, flag)
    created = not directory.exists()
    with locked(directory, flag):
        check_kind(directory, kind, flag)  # another process may have written in between
        try:
            mark(directory, kind)
            yield
        except BaseException:
            if created and jax.process_index() == 0:
                with contextlib.suppress(OSError):  # the first error is the one to report
                    _clean_up(directory, kind)
            raise


def _clean_up(directory: Path, kind: str) -> None:
    """Removes the files of a failed job from a directory that it created, except a run's."""
    if kind != RUN and not saved(directory / "checkpoints"):
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    if os.listdir(directory) == [_FILE]:
        (directory / _FILE).unlink()
    if not os.listdir(directory):
        directory.rmdir()


@contextlib.contextmanager
def locked(directory: Path, flag: str = "--workdir") -> Iterator[None]:
    """Holds an exclusive lock on a directory, while the block runs.

    The system releases the lock when the process ends, even if it is killed.

    Args:
      directory: the directory; created if missing.
      flag: the flag that named the directory, for error messages.

    Raises:
      UserError: another process holds the lock, or the directory cannot be created.
    """
    if jax.process_index() != 0:
        yield
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise files.cannot_write(Path(f"{flag}={directory}"), error) from error
    try:
        _lock(descriptor, directory, flag)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, directory: Path, flag: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(
            f"another process writes to {flag}={directory}; wait for it, or use another directory"
        ) from error
    except OSError as error:  # some network file systems have no locks
        say(f"{flag}={directory} cannot be locked ({error.strerror}): run one process there")


def mark(directory: Path, kind: str) -> None:
    """Records the kind of a directory's content in `kdjax.json`.

    Raises:
      UserError: the directory cannot be written to.
    """
    if jax.process_index() == 0:
        content = json.dumps({"format": FORMAT, "kind": kind}) + "\n"
        files.write_atomically(directory / _FILE, content)


def kind_of(directory: Path) -> str | None:
    """The recorded kind of a directory's content, one of `KINDS`, or None without a record.

    Raises:
      UserError: it was written by a kdjax with another format, or `kdjax.json` is damaged.
    """
    path = directory / _FILE
    if not os.path.lexists(path):
        if _is_first_format(directory):
            raise _other_format(directory, 1)
        return None
    way_out = "restore it from a copy, or use another directory"
    fields = schema.read_object(path, _FIELDS, way_out)
    if fields["format"] != FORMAT:
        raise _other_format(directory, fields["format"])
    return schema.read_object(path, _FIELDS_OF_FORMAT, way_out)["kind"]


def check_kind(directory: Path, kind: str, flag: str = "--workdir") -> None:
    """Checks that content of a kind may be written to a directory.

    A directory without a finished checkpoint, for instance of a run that failed at its start, is
    free. Runs may be resumed; imported and compact networks are never overwritten.

    Raises:
      UserError: the directory is in use, or holds content of another kind.
    """
    present = kind_of(directory)
    if not saved(directory / "checkpoints"):
        return
    if kind != RUN:
        raise UserError(
            f"{flag}={directory} is in use: it holds {_named(present)}; name another directory"
        )
    if present not in (RUN, None):
        raise UserError(
            f"{flag}={directory} holds {_named(present)}, not a run; name another directory for "
            "the run"
        )


def _named(kind: str | None) -> str:
    return {None: "checkpoints", IMPORTED: "an imported network"}.get(kind, f"a {kind}")


def _is_first_format(directory: Path) -> bool:
    checkpoints = directory / "checkpoints"
    if not saved(checkpoints):
        return False
    steps = [path for path in checkpoints.iterdir() if path.name.isdecimal()]
    return not any((path / "metadata").exists() for path in steps)


def _other_format(directory: Path, number: int) -> UserError:
    return UserError(
        f"{directory} is of format {number}, of another kdjax; this one reads and writes format "
        f"{FORMAT}: use the kdjax that wrote it, or another directory"
    )
