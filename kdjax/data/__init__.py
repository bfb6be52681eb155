"""Data pipeline: sources, subsets, the order of an epoch, augmentation, streaming.

What is named here is imported when it is first used: worker processes, which decode images, have
no need of jax.
"""

import importlib
from typing import Any

_MODULES = {
    "ArraySplit": "splits",
    "Dataset": "dataset",
    "RecordSplit": "splits",
    "Source": "splits",
    "load": "dataset",
    "register_augmentation": "augment",
    "register_policy": "policies",
    "register_source": "sources",
}

__all__ = [
    "ArraySplit",
    "Dataset",
    "RecordSplit",
    "Source",
    "load",
    "register_augmentation",
    "register_policy",
    "register_source",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
