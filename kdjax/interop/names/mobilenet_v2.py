"""Names of MobileNetV2."""

from __future__ import annotations

import re

import flax.linen as nn

from kdjax.interop.names.base import FAMILIES, Family, Rules
from kdjax.models import MobileNetV2
from kdjax.models.mobilenet_v2 import STAGES

# Positions in the official `conv` of a block; the ReLUs are 2 and 5.
_LAYERS = {
    "expand_conv": 0,
    "expand_bn": 1,
    "depthwise_conv": 3,
    "depthwise_bn": 4,
    "project_conv": 6,
    "project_bn": 7,
}


def _group(stage: int, block: int, first_stage: int) -> str:
    """'group.block' of a block of a stage, groups counted from the start of `first_stage`."""
    group = sum(len(groups) for groups in STAGES[first_stage - 1 : stage - 1])
    for width in STAGES[min(stage, len(STAGES)) - 1]:
        if block < width.blocks:
            break
        block -= width.blocks
        group += 1
    return f"{group}.{block}"


def _block(match: re.Match) -> str:
    stage, block, layer = match.groups()
    return f"blocks.{_group(int(stage), int(block), 1)}.conv.{_LAYERS[layer]}"


def _extractor(match: re.Match) -> str:
    branch, stage, block, layer = match.groups()
    place = _group(int(stage), int(block), int(branch) + 1)
    return f"block_extractor{branch}.{place}.conv.{_LAYERS[layer]}"


def _plain(network: nn.Module) -> dict[str, Rules]:
    del network
    return {
        "HSAKD": (
            ("stem_conv", "conv1.0"),
            ("stem_bn", "conv1.1"),
            (r"stage(\d)_block(\d)/(.+)", _block),
            ("final_conv", "conv2.0"),
            ("final_bn", "conv2.1"),
            ("classifier", "classifier"),
        )
    }


_BRANCH: Rules = (
    (r"branch(\d)/stage(\d)_block(\d)/(.+)", _extractor),
    (r"branch(\d)/final_conv", r"conv2_\1.0"),
    (r"branch(\d)/final_bn", r"conv2_\1.1"),
    (r"branch(\d)/classifier", r"fc\1"),
)

FAMILIES[MobileNetV2] = Family(plain=_plain, branch=_BRANCH)
