"""Where kdjax keeps what is compiled once: the user's cache folder."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from pathlib import Path

_PROCESSOR = Path("/proc/cpuinfo")


def folder(environment: Mapping[str, str], kind: str) -> Path | None:
    """The folder of one kind of file, for this kind of processor: `$XDG_CACHE_HOME/kdjax/KIND/...`.

    What is compiled for one processor may hold instructions that another lacks, and home
    directories are shared between machines. None where the user has no home directory.
    """
    base = Path(environment.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # such a value is to be ignored, by the XDG specification
        try:
            base = Path.home() / ".cache"
        except RuntimeError:
            return None
    return base / "kdjax" / kind / _processor()


def _processor() -> str:
    """The machine's architecture, with a digest of its instruction sets where Linux lists them."""
    flags = ""
    if _PROCESSOR.exists():
        lines = _PROCESSOR.read_text().splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()}-{hashlib.sha256(flags.encode()).hexdigest()[:12]}"
