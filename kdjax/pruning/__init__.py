"""Filter pruning while training, for any optax chain.

Importing this needs jax, numpy and optax alone. What knows kdjax's networks and takes pruned
filters out of them is `kdjax.compaction`.
"""

from kdjax.pruning import accounting, criteria, schedules
from kdjax.pruning.engine import PruningState, initial, pruning_state
from kdjax.pruning.groups import FilterGroup, Selection, table, together, within
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
from kdjax.pruning.selections import by_pattern, official
from kdjax.pruning.transformation import filter_pruning, weight_pruning

__all__ = [
    "METHODS",
    "FilterGroup",
    "PruningState",
    "Schedules",
    "Selection",
    "accounting",
    "asfp",
    "asrfp",
    "by_pattern",
    "criteria",
    "filter_pruning",
    "fpgm",
    "ghfp",
    "hfp",
    "initial",
    "method_schedules",
    "official",
    "pruning_state",
    "schedules",
    "sfp",
    "srfp",
    "table",
    "together",
    "weight_pruning",
    "within",
]
