"""Pruned filters really removed from kdjax's networks."""

from kdjax.compaction.cutting import narrow
from kdjax.compaction.network_groups import filter_groups, with_removed
from kdjax.compaction.recalibration import recalibrate_batch_norm
from kdjax.compaction.removal import Removal, removal_table, remove_filters, shrink
from kdjax.compaction.zero_filters import masks_of_zeros

__all__ = [
    "Removal",
    "filter_groups",
    "masks_of_zeros",
    "narrow",
    "recalibrate_batch_norm",
    "removal_table",
    "remove_filters",
    "shrink",
    "with_removed",
]
