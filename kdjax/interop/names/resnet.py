"""Names of residual networks."""

from __future__ import annotations

import re

import flax.linen as nn

from kdjax.interop.names.base import FAMILIES, Family, Rules
from kdjax.models import CifarResNet


def _extractor(match: re.Match) -> str:
    """Stages of a branch are counted from where it starts."""
    branch, stage, block, layer = match.groups()
    return f"block_extractor{branch}.{int(stage) - int(branch) - 1}.{block}.{_layer(layer)}"


def _layer(layer: str) -> str:
    return {"shortcut_conv": "downsample.0", "shortcut_bn": "downsample.1"}.get(layer, layer)


def _names(classifier: str) -> Rules:
    return (
        ("stem_conv", "conv1"),
        ("stem_bn", "bn1"),
        (r"stage(\d)_block(\d+)/(.+)", lambda m: f"layer{m[1]}.{m[2]}.{_layer(m[3])}"),
        ("classifier", classifier),
    )


def _plain(network: nn.Module) -> dict[str, Rules]:
    del network
    return {"HSAKD": _names("fc"), "MCL": _names("classifier")}


_BRANCH: Rules = (
    (r"branch(\d)/stage(\d)_block(\d+)/(.+)", _extractor),
    (r"branch(\d)/classifier", r"fc\1"),
)
_SHARED: Rules = (
    (
        r"network_(\d)/stage(\d)_block(\d+)/(.+)",
        lambda m: f"layer{m[2]}_{m[1]}.{m[3]}.{_layer(m[4])}",
    ),
    (r"network_(\d)/classifier", r"classifier_\1"),
)

FAMILIES[CifarResNet] = Family(plain=_plain, branch=_BRANCH, shared=_SHARED)
