"""Memory that a training step frees, kept in the process for the next step.

glibc gives large blocks back to the system as soon as they are freed. XLA for CPU takes the memory
of a step from it and frees it afterwards, so every step would touch new pages. What is kept falls
into pieces over time, and steps take more; after every epoch the pieces are given back.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
from collections.abc import Mapping
from importlib import metadata

# glibc's malloc.h: the heap is never trimmed, no block has a mapping of its own, and all threads
# share one heap, since those of other threads are unmapped when they are empty.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_OPTIONS = {_TRIM_THRESHOLD: -1, _MMAP_MAX: 0, _ARENA_MAX: 1}
_log = logging.getLogger("kdjax")
_kept: list[ctypes.CDLL] = []  # the C library, from when on it keeps what is freed


def keep(environment: Mapping[str, str]) -> bool:
    """Has glibc keep what this process frees; before threads have heaps of their own.

    Args:
      environment: of the process. A user who tunes glibc's malloc himself, by `MALLOC_...` or
        `GLIBC_TUNABLES`, has his way.

    Returns:
      Whether it does: there may be another C library, or an accelerator that computes the steps.
    """
    tuned = [name for name in environment if name.startswith("MALLOC_")]
    if "glibc.malloc" in environment.get("GLIBC_TUNABLES", ""):
        tuned.append("GLIBC_TUNABLES")
    if tuned:
        _log.debug("freed memory is kept or not as %s says", ", ".join(tuned))
        return False
    if not _is_glibc():
        _log.debug("freed memory is not kept: the C library is not glibc")
        return False
    if not _computes_on_cpu(environment):
        _log.debug("freed memory is not kept: the steps are an accelerator's")
        return False
    library = ctypes.CDLL(None)
    refused = [option for option, value in _OPTIONS.items() if not library.mallopt(option, value)]
    if refused:
        _log.debug("freed memory is not kept: mallopt refuses %s", refused)
        return False
    _kept[:] = [library]
    return True


def give_back() -> None:
    """Gives the system what is free at this time, where it is kept."""
    for library in _kept:
        library.malloc_trim(0)


def _computes_on_cpu(environment: Mapping[str, str]) -> bool:
    """Whether JAX, which is not imported yet, is going to compute on the CPU."""
    if platforms := environment.get("JAX_PLATFORMS"):
        return platforms.split(",")[0] == "cpu"
    plugins = metadata.entry_points(group="jax_plugins")
    return not plugins and importlib.util.find_spec("libtpu") is None


def _is_glibc() -> bool:
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (AttributeError, OSError, ValueError):  # Windows, macOS, another C library
        return False
