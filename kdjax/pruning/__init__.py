"""Filter pruning while training, for any optax chain.

Importing this needs jax, numpy and optax alone. What knows kdjax's networks (`compact`, `shrink`,
`narrow`, `filter_groups`, ...) needs flax, too, and is imported when it is first asked for.
"""

import importlib

from kdjax.pruning import accounting, criteria, schedules
from kdjax.pruning.engine import PruningState, initial, pruning_state
from kdjax.pruning.groups import (
    FilterGroup,
    Selection,
    by_pattern,
    official,
    table,
    together,
    within,
)
from kdjax.pruning.methods import (
    METHODS,
    Schedules,
    asfp,
    asrfp,
    fpgm,
    ghfp,
    hfp,
    method_schedules,
    sfp,
    srfp,
)
from kdjax.pruning.transformation import filter_pruning, weight_pruning

_WITH_FLAX = {
    "Compact": "compaction",
    "compact": "compaction",
    "removal_table": "compaction",
    "shrink": "compaction",
    "narrow": "cutting",
    "filter_groups": "network_groups",
    "with_removed": "network_groups",
    "recalibrate_batch_norm": "recalibration",
    "masks_of_zeros": "zeros",
}

__all__ = [
    "METHODS",
    "Compact",
    "FilterGroup",
    "PruningState",
    "Schedules",
    "Selection",
    "accounting",
    "asfp",
    "asrfp",
    "by_pattern",
    "compact",
    "criteria",
    "filter_groups",
    "filter_pruning",
    "fpgm",
    "ghfp",
    "hfp",
    "initial",
    "masks_of_zeros",
    "method_schedules",
    "narrow",
    "official",
    "pruning_state",
    "recalibrate_batch_norm",
    "removal_table",
    "schedules",
    "sfp",
    "shrink",
    "srfp",
    "table",
    "together",
    "weight_pruning",
    "with_removed",
    "within",
]


def __getattr__(name: str):
    if name not in _WITH_FLAX:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WITH_FLAX[name]}"), name)
