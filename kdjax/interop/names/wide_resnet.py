"""Names of Wide ResNets."""

from __future__ import annotations

import re

import flax.linen as nn

from kdjax.interop.names.base import FAMILIES, Family, Rules
from kdjax.models import WideResNet


def _layer(layer: str) -> str:
    return {"shortcut_conv": "convShortcut"}.get(layer, layer)


def _extractor(match: re.Match[str]) -> str:
    """Stages of a branch are counted from where it starts."""
    branch, stage, block, layer = match.groups()
    place = int(stage) - int(branch) - 1
    return f"block_extractor{branch}.{place}.layer.{block}.{_layer(layer)}"


def _plain(network: nn.Module) -> dict[str, Rules]:
    del network
    return {
        "HSAKD": (
            ("stem_conv", "conv1"),
            (r"stage(\d)_block(\d+)/(.+)", lambda m: f"block{m[1]}.layer.{m[2]}.{_layer(m[3])}"),
            ("final_bn", "bn1"),
            ("classifier", "fc"),
        )
    }


_BRANCH: Rules = (
    (r"branch(\d)/stage(\d)_block(\d+)/(.+)", _extractor),
    (r"branch(\d)/final_bn", r"bn\1"),
    (r"branch(\d)/classifier", r"fc\1"),
)
_SHARED: Rules = (
    (
        r"network_(\d+)/stage(\d)_block(\d+)/(.+)",
        lambda m: f"block{m[2]}_{m[1]}.layer.{m[3]}.{_layer(m[4])}",
    ),
    (r"network_(\d+)/final_bn", r"bn_\1"),
    (r"network_(\d+)/classifier", r"classifier_\1"),
)

FAMILIES[WideResNet] = Family(plain=_plain, branch=_BRANCH, shared=_SHARED)
