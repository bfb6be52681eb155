"""Compiled programs that are kept between runs, in the user's cache folder."""

from __future__ import annotations

import os
import sys

from kdjax import user_cache

_VARIABLE = "JAX_COMPILATION_CACHE_DIR"


def keep() -> None:
    """Has JAX keep what took it more than a second to compile; where the user named no folder."""
    chosen = user_cache.folder(os.environ, "compiled")
    if _VARIABLE in os.environ or chosen is None:
        return
    os.environ[_VARIABLE] = str(chosen)
    if "jax" in sys.modules:  # it has read its variables
        import jax

        jax.config.update("jax_compilation_cache_dir", str(chosen))
