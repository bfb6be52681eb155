"""Files that are whole or not there: written beside their place, and renamed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from kdjax.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT)
# What a full disk, a limit or a broken disk makes of a write.
UNWRITABLE = (*_FULL, errno.EFBIG, errno.EROFS, errno.EIO)
# And permissions or a path: errors that reading has, too.
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
      path: of the file.
      content: all of it; text is written as UTF-8.
      replace: whether a file that is there already is replaced.

    Raises:
      UserError: the file exists and is not to be replaced, or cannot be written.
    """
    with writing(path, replace=replace) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def writing(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Gives a path beside `path` to write to; what is there after the block is renamed to `path`.

    If the block raises, nothing is left. What a killed process left is overwritten.

    Raises:
      UserError: the file exists and is not to be replaced, another process writes it, or it cannot
        be written.
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
    """Removes what is left of a write, unless another process writes there."""
    try:
        with open(temporary, "rb") as lock:
            _lock_file(lock, temporary)
            temporary.unlink(missing_ok=True)
    except (FileNotFoundError, UserError):
        return


def _lock_file(file, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"another process writes {path}; wait for it") from error
    except OSError:  # some network file systems have no locks; the rename is atomic there too
        return


def sync_directory(path: Path) -> None:
    """Asks the system to write a directory's list of files to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some file systems do not know it of directories
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def refusal(error: BaseException, numbers: Sequence[int] = (*UNWRITABLE, *_REFUSED)) -> str | None:
    """What the system says of a write that it refused, or None if an error is no such thing.

    Libraries that write from threads of their own raise other errors, with the system's words in
    their text; these are looked for along the chain of causes.
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
    """Whether an error comes of a full disk or an exhausted quota."""
    return refusal(error) in [os.strerror(number) for number in _FULL]


def cannot_write(path: Path, error: BaseException) -> UserError:
    """The one line about a file or directory that cannot be written."""
    reason = refusal(error) or " ".join(str(error).split())
    if is_full(error):
        return UserError(f"{path} cannot be written: the disk is full ({reason}); {WAY_OUT}")
    return UserError(f"{path} cannot be written: {reason}")
