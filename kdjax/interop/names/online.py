"""Names of the cohorts of ONE, OKDDip and CL-ILR, as in MCL-OKD."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from kdjax.interop import mapping
from kdjax.interop.names.base import rename
from kdjax.interop.state_dict_entries import Naming
from kdjax.models import Cohort
from kdjax.models.online import GatedCohort, PeerAttentionCohort, TreeCohort

_cohort = mapping.namings.dispatch(Cohort)


@mapping.namings.register
def _gated(cohort: GatedCohort) -> dict[str, Naming]:
    return mapping.extended(_cohort(cohort), {"gate_dense": "gate_fc", "gate_bn": "gate_norm"})


@mapping.namings.register
def _peers(cohort: PeerAttentionCohort) -> dict[str, Naming]:
    return mapping.extended(_cohort(cohort), {"query": "query_weight", "key": "key_weight"})


@mapping.namings.register
def _tree(cohort: TreeCohort) -> dict[str, Naming]:
    rules = mapping.shared_rules(cohort)

    def naming(trunk_naming: Naming, path: str) -> str:
        owner, _, rest = path.partition("/")
        # Pairs are counted as networks are: 'layer2_0' is that of the first two.
        return (
            trunk_naming(rest)
            if owner == "trunk"
            else rename(rules, path.replace("pair", "network"))
        )

    dialects = mapping.namings(cohort.networks[0])
    return {name: functools.partial(naming, trunk) for name, trunk in dialects.items()}


@mapping.unread.register
def _transitions(cohort: TreeCohort, names: Sequence[str]) -> dict[str, str]:
    """The official DenseNet makes a transition of stage 2 per network and uses one per pair."""
    first, count = "layer2_tran0.", len(cohort.networks)
    return {
        name.replace(first, f"layer2_tran{index}."): name
        for index in range((count + 1) // 2, count)
        for name in names
        if name.startswith(first)
    }
