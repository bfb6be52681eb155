"""Atomic writes: a file is written under a temporary name in its directory, then renamed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from kdjax.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT)
# Errors of a write on a full disk, at a size limit, or on a read-only or broken disk.
UNWRITABLE = (*_FULL, errno.EFBIG, errno.EROFS, errno.EIO)
# Errors of permissions or of the path, which reads have as well.
_REFUSED = (
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
    *(errno.ELOOP, errno.ENOENT, errno.EEXIST, errno.ESTALE),
)
WAY_OUT = (
    "make room and run the same command again: a run goes on from its last finished checkpoint"
)


def write_atomically(path: Path, content: str | bytes, *, replace: bool = True) -> None:
    """Writes a file that is either the old one or the new one, whenever the process is killed.

    Args:
      path: the file.
      content: the content of the file; text is written as UTF-8.
      replace: whether an existing file is replaced.

    Raises:
      UserError: the file exists and `replace` is False, or it cannot be written.
    """
    with writing(path, replace=replace) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def writing(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yields a temporary path in the same directory, which is renamed to `path` after the block.

    If the block raises, the temporary file is removed. One that a killed process left behind is
    overwritten.

    Args:
      path: the file.
      replace: whether an existing file is replaced.

    Raises:
      UserError: the file exists and `replace` is False, another process writes it, or it cannot be
        written.
    """
    temporary = path.with_name(f"unfinished_{path.name}")
    try:
        try:
            with open(temporary, "ab") as lock:
                _lock_file(lock, path)
                if not replace and path.exists():
                    raise UserError(f"{path} exists; name another file")
                yield temporary
                with open(temporary, "rb+") as file:
                    os.fsync(file.fileno())
                temporary.replace(path)
        finally:  # a signal may come between any two lines above
            _discard(temporary)
        sync_directory(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


def _discard(temporary: Path) -> None:
    """Removes the temporary file of a failed write, unless another process writes it."""
    try:
        with open(temporary, "rb") as lock:
            _lock_file(lock, temporary)
            temporary.unlink(missing_ok=True)
    except (FileNotFoundError, UserError):
        return


def _lock_file(file: IO[Any], path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"another process writes {path}; wait for it") from error
    except OSError:  # some network file systems have no locks; the rename is atomic there too
        return


def sync_directory(path: Path) -> None:
    """Flushes a directory's entries to the disk.

    Raises:
      OSError: the directory cannot be opened or flushed. File systems that cannot flush directories
        are no error.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some file systems cannot flush directories
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def refusal(error: BaseException, numbers: Sequence[int] = (*UNWRITABLE, *_REFUSED)) -> str | None:
    """The system's message for a refused write, or None for any other error.

    Libraries that write in their own threads raise other exceptions, whose text contains the
    system's message; the chain of causes is searched for it.

    Args:
      error: the exception.
      numbers: the `errno` values that count as a refused write.
    """
    cause: BaseException | None = error
    while cause is not None:
        for number in numbers:
            text = os.strerror(number)
            if (isinstance(cause, OSError) and cause.errno == number) or text in str(cause):
                return text
        cause = cause.__cause__ or cause.__context__
    return None


def is_full(error: BaseException) -> bool:
    """Whether an error is due to a full disk or an exhausted quota."""
    return refusal(error) in [os.strerror(number) for number in _FULL]


def cannot_write(path: Path, error: BaseException) -> UserError:
    """The `UserError` for a file or directory that cannot be written."""
    reason = refusal(error) or " ".join(str(error).split())
    if is_full(error):
        return UserError(f"{path} cannot be written: the disk is full ({reason}); {WAY_OUT}")
    return UserError(f"{path} cannot be written: {reason}")
