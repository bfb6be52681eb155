"""Compiled programs that are kept between runs, in the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

_VARIABLE = "JAX_COMPILATION_CACHE_DIR"
_PROCESSOR = Path("/proc/cpuinfo")


def folder(environment: Mapping[str, str]) -> Path | None:
    """The folder of this kind of processor: `$XDG_CACHE_HOME/kdjax/compiled/...`.

    What is compiled for one processor may hold instructions that another lacks, and home
    directories are shared between machines. None where the user has no home directory.
    """
    base = Path(environment.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # such a value is to be ignored, by the XDG specification
        try:
            base = Path.home() / ".cache"
        except RuntimeError:
            return None
    return base / "kdjax" / "compiled" / _processor()


def _processor() -> str:
    """The machine's architecture, with a digest of its instruction sets where Linux lists them."""
    flags = ""
    if _PROCESSOR.exists():
        lines = _PROCESSOR.read_text().splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()}-{hashlib.sha256(flags.encode()).hexdigest()[:12]}"


def keep() -> None:
    """Has JAX keep what took it more than a second to compile; where the user named no folder."""
    chosen = folder(os.environ)
    if _VARIABLE in os.environ or chosen is None:
        return
    os.environ[_VARIABLE] = str(chosen)
    if "jax" in sys.modules:  # it has read its variables
        import jax

        jax.config.update("jax_compilation_cache_dir", str(chosen))
