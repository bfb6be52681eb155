"""Paths and files of data sets: only regular files are opened."""

import stat
from pathlib import Path

from kdjax.data.available_memory import check_fits
from kdjax.errors import UserError

_WAY_OUT = "replace it or remove it from the data set"


def expanded(path: str, setting: str = "config.data.source") -> Path:
    """The path with `~` and `~user` replaced by the home directory.

    Args:
      path: as the user wrote it.
      setting: the setting that it is the value of, for the message.

    Raises:
      UserError: there is no such user, or the text cannot be a path.
    """
    if "\0" in path:
        raise UserError(f"{setting}={path!r}: a path cannot contain a null character")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{setting}={path!r}: the home directory is unknown; write the whole path"
        ) from error


def is_regular(path: Path) -> bool:
    """Whether `path` is an accessible regular file or a link to one."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def is_directory(path: Path) -> bool:
    """Whether `path` is an accessible directory or a link to one."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False


def exists(path: Path) -> bool:
    """Whether `path` exists and is accessible."""
    try:
        path.stat()
    except OSError:
        return False
    return True


def check_regular(path: Path) -> None:
    """Checks that `path` is a regular file: reading a named pipe, for example, might block forever.

    Raises:
      UserError: `path` is missing, inaccessible or not a regular file.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {_WAY_OUT}") from error
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: not a regular file; {_WAY_OUT}")


def read_bytes(path: Path) -> bytes:
    """The content of a regular file.

    Raises:
      UserError: `path` is missing, unreadable, not a regular file or larger than the memory.
    """
    check_regular(path)
    try:
        check_fits(path.stat().st_size, str(path), _WAY_OUT)
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {_WAY_OUT}") from error


def sorted_entries(directory: Path) -> list[Path]:
    """The entries of a directory by name, without hidden ones.

    Raises:
      UserError: the directory cannot be listed.
    """
    try:
        names = sorted(entry.name for entry in directory.iterdir())
    except OSError as error:
        raise UserError(f"{directory}: cannot be listed ({error.strerror})") from error
    return [directory / name for name in names if not name.startswith(".")]
