"""Pruned filters really removed, from kdjax's networks and from any other."""

from kdjax.compaction.channel_cut import Cut, cut, cut_like
from kdjax.compaction.cutting import narrow
from kdjax.compaction.declared_links import Feed, links
from kdjax.compaction.link_table import Link, Links
from kdjax.compaction.network_groups import filter_groups, with_removed
from kdjax.compaction.recalibration import recalibrate_batch_norm
from kdjax.compaction.removal import Removal, removal_table, remove_filters, shrink
from kdjax.compaction.tracing import trace_links
from kdjax.compaction.zero_filters import masks_of_zeros

__all__ = [
    "Cut",
    "Feed",
    "Link",
    "Links",
    "Removal",
    "cut",
    "cut_like",
    "filter_groups",
    "links",
    "masks_of_zeros",
    "narrow",
    "recalibrate_batch_norm",
    "removal_table",
    "remove_filters",
    "shrink",
    "trace_links",
    "with_removed",
]
