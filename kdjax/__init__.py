"""kdjax: small vision networks, better than their size, in JAX and Flax."""

import importlib

__version__ = "0.1.0"

# Imported when they are first used: `kdjax.losses` and `kdjax.pruning` need little beside jax.
_LAZY = {"load_run": "kdjax.training.evaluation", "evaluate": "kdjax.training.evaluation"}


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module 'kdjax' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
