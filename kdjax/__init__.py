"""kdjax: small vision networks, better than their size, in JAX and Flax."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdjax import compaction as compaction
    from kdjax import config as config
    from kdjax import data as data
    from kdjax import losses as losses
    from kdjax import methods as methods
    from kdjax import models as models
    from kdjax import networks as networks
    from kdjax import pruning as pruning
    from kdjax.training.api import train as train
    from kdjax.training.evaluation import evaluate as evaluate
    from kdjax.training.evaluation import load_run as load_run

__version__ = "0.1.0"

# Imported when they are first used: `kdjax.losses` and `kdjax.pruning` need little beside jax.
_LAZY = {
    "evaluate": "kdjax.training.evaluation",
    "load_run": "kdjax.training.evaluation",
    "train": "kdjax.training.api",
}
_ROOMS = ("compaction", "config", "data", "losses", "methods", "models", "networks", "pruning")

__all__ = ["__version__", "evaluate", "load_run", "train", *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"kdjax.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module 'kdjax' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
