"""Checks that arrays fit the memory of this machine, before they are allocated."""

import contextlib
import resource
from pathlib import Path

from kdjax.errors import UserError

_CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int | None:
    """Bytes that this process can still allocate; None where the system does not report them.

    The minimum of the machine's free memory, the limit of the container (cgroup) and the limit of
    the process's address space.
    """
    limits = [limit for limit in (_machine(), _container(), _process()) if limit is not None]
    return max(0, min(limits)) if limits else None


def check_fits(size: int, what: str, way_out: str) -> None:
    """Checks that `size` bytes can be allocated.

    Args:
      size: bytes.
      what: the setting or file that needs them: the start of the message.
      way_out: what to change: the end of the message.

    Raises:
      UserError: there is less memory.
    """
    available = available_bytes()
    if available is not None and size > available:
        raise UserError(
            f"{what} needs {_gibibytes(size)} of memory, {_gibibytes(available)} are available; "
            f"{way_out}"
        )


def _gibibytes(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"


def _machine() -> int | None:
    return _labeled_kibibytes(Path("/proc/meminfo"), "MemAvailable:")


def _container() -> int | None:
    with contextlib.suppress(OSError, ValueError):  # no cgroup, or 'max'
        limit = int((_CGROUP / "memory.max").read_text())
        return limit - int((_CGROUP / "memory.current").read_text())
    return None


def _process() -> int | None:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    used = _labeled_kibibytes(Path("/proc/self/status"), "VmSize:")
    return None if limit == resource.RLIM_INFINITY else limit - (used or 0)


def _labeled_kibibytes(file: Path, label: str) -> int | None:
    """The value of the line `label: VALUE kB` in bytes."""
    with contextlib.suppress(OSError):
        for line in file.read_text().splitlines():
            if line.startswith(label):
                return 1024 * int(line.split()[1])
    return None
