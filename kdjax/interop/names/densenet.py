"""Names of DenseNets. No official repository gives them branches."""

from __future__ import annotations

import re

import flax.linen as nn

from kdjax.interop.names.base import FAMILIES, Family, Rules
from kdjax.models import DenseNet, PeerAttentionCohort


def _part(part: str) -> str:
    return part.replace("bn", "norm")


def _layer(index: str, part: str) -> str:
    return f"denselayer{int(index) + 1}.{_part(part)}"


def _plain(network: nn.Module) -> dict[str, Rules]:
    del network
    return {
        "MCL-OKD": (
            ("stem_conv", "features.conv0"),
            (
                r"stage(\d)_layer(\d+)/(.+)",
                lambda m: f"features.denseblock{m[1]}.{_layer(m[2], m[3])}",
            ),
            (r"stage(\d)_transition/(.+)", lambda m: f"features.transition{m[1]}.{_part(m[2])}"),
            ("final_bn", "features.norm_final_"),
            ("classifier", "classifier"),
        )
    }


def _shared(cohort: nn.Module) -> Rules:
    """OKDDip counts the stages that are not shared from 1, the others count as in the network."""
    before = cohort.shared_stages if isinstance(cohort, PeerAttentionCohort) else 0

    def layer(match: re.Match[str]) -> str:
        network, stage, index, part = match.groups()
        return f"layer{int(stage) - before}_{network}.{_layer(index, part)}"

    def transition(match: re.Match[str]) -> str:
        network, stage, part = match.groups()
        return f"layer{int(stage) - before}_tran{network}.{_part(part)}"

    return (
        (r"network_(\d+)/stage(\d)_layer(\d+)/(.+)", layer),
        (r"network_(\d+)/stage(\d)_transition/(.+)", transition),
        (r"network_(\d+)/final_bn", r"norm_final_\1"),
        (r"network_(\d+)/classifier", r"classifier_\1"),
    )


FAMILIES[DenseNet] = Family(plain=_plain, shared=_shared)
