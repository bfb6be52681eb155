"""Reading of the arrays of an untrusted .npz file.

The header of an array is checked before memory is allocated: nothing is unpickled, and no header
makes this process allocate more memory than the machine has.
"""

import math
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO

import numpy as np

from kdjax.data.available_memory import check_fits
from kdjax.data.regular_files import check_regular
from kdjax.errors import UserError

_READ_HEADER = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1  # bit of a member's flags
_LARGEST_RATIO = 1032  # of sizes before and after deflation


def read_members(path: Path, wanted: Collection[str]) -> dict[str, np.ndarray | None]:
    """Reads the arrays of `path` whose names are `wanted`.

    Args:
      path: of an .npz file, as `numpy.savez` or `numpy.savez_compressed` writes it.
      wanted: names of arrays.

    Returns:
      The arrays by name; None for those that are not in `wanted`, which are not read.

    Raises:
      UserError: not a regular or readable .npz file; a wanted member is encrypted, damaged, not an
        array, an array of Python objects, or larger than the memory.
    """
    check_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {}
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if name in members:
                    raise _unreadable(path, f"it holds {name} twice")
                members[name] = _read_member(archive, info, path) if name in wanted else None
            return members
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many kinds for damaged bytes
        raise _unreadable(path, " ".join(str(error).split())[:200]) from error


def shape_of(path: Path, name: str) -> tuple[int, ...]:
    """The shape of an array of a file, from its header.

    Args:
      path: of an .npz file.
      name: of one of its arrays.

    Raises:
      UserError: not a regular or readable .npz file, or no such array in it.
    """
    check_regular(path)
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
            return _read_header(stream, name, path)[0]
    except UserError:
        raise
    except Exception as error:  # as in `read_members`
        raise _unreadable(path, " ".join(str(error).split())[:200]) from error


def _unreadable(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path}: not a readable .npz file ({reason}); write it again with numpy.savez"
    )


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> np.ndarray:
    name = info.filename
    if info.flag_bits & _ENCRYPTED:
        raise _unreadable(path, f"{name} is encrypted")
    if info.compress_type not in _COMPRESSIONS:
        raise _unreadable(path, f"{name} is compressed in another way than numpy compresses")
    if info.file_size > _LARGEST_RATIO * info.compress_size:
        raise _unreadable(path, f"{name} claims to be larger than what it is compressed to")
    with archive.open(info) as stream:
        shape, dtype = _read_header(stream, name, path)
        size = math.prod(shape) * dtype.itemsize
        if size != info.file_size - stream.tell():
            raise _unreadable(path, f"{name} holds {info.file_size} bytes, not {list(shape)}")
    check_fits(size, f"{path}: {name}", "use a smaller file or a machine with more memory")
    with archive.open(info) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _read_header(stream: IO[bytes], name: str, path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of a member."""
    start = stream.read(len(np.lib.format.MAGIC_PREFIX) + 2)
    if not start.startswith(np.lib.format.MAGIC_PREFIX) or len(start) < 8:
        raise _unreadable(path, f"{name} is not an array")
    version = start[-2], start[-1]
    if version not in _READ_HEADER:
        raise _unreadable(path, f"{name} is of format {version[0]}.{version[1]}")
    shape, _, dtype = _READ_HEADER[version](stream)
    if dtype.hasobject:
        raise _unreadable(path, f"{name} holds Python objects, which are never unpickled")
    if any(length < 0 for length in shape):
        raise _unreadable(path, f"{name} has the shape {list(shape)}")
    return shape, dtype
