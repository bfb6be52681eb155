"""Names of MobileNetV2."""

from __future__ import annotations

import re

import flax.linen as nn

from kdjax.interop.names.base import FAMILIES, Family, Rules
from kdjax.models import ImageNetMobileNetV2, MobileNetV2
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


def _block(match: re.Match[str]) -> str:
    stage, block, layer = match.groups()
    return f"blocks.{_group(int(stage), int(block), 1)}.conv.{_LAYERS[layer]}"


def _extractor(match: re.Match[str]) -> str:
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

# Places in torchvision's blocks, and names in timm's; of the first block, and of all others.
_TORCHVISION_LAYERS = {
    "expand_conv": "0.0",
    "expand_bn": "0.1",
    "depthwise_conv": "1.0",
    "depthwise_bn": "1.1",
    "project_conv": "2",
    "project_bn": "3",
}
_TORCHVISION_FIRST = {
    "depthwise_conv": "0.0",
    "depthwise_bn": "0.1",
    "project_conv": "1",
    "project_bn": "2",
}
_TIMM_LAYERS = {
    "expand_conv": "conv_pw",
    "expand_bn": "bn1",
    "depthwise_conv": "conv_dw",
    "depthwise_bn": "bn2",
    "project_conv": "conv_pwl",
    "project_bn": "bn3",
}
_TIMM_FIRST = {
    "depthwise_conv": "conv_dw",
    "depthwise_bn": "bn1",
    "project_conv": "conv_pw",
    "project_bn": "bn2",
}


def _is_first(match: re.Match[str]) -> bool:
    return match.group(1, 2) == ("1", "0")


def _torchvision_block(match: re.Match[str]) -> str:
    stage, block, layer = match.groups()
    before = sum(group.blocks for groups in STAGES[: int(stage) - 1] for group in groups)
    layers = _TORCHVISION_FIRST if _is_first(match) else _TORCHVISION_LAYERS
    return f"features.{1 + before + int(block)}.conv.{layers[layer]}"


def _timm_block(match: re.Match[str]) -> str:
    stage, block, layer = match.groups()
    layers = _TIMM_FIRST if _is_first(match) else _TIMM_LAYERS
    return f"blocks.{_group(int(stage), int(block), 1)}.{layers[layer]}"


def _large(network: nn.Module) -> dict[str, Rules]:
    del network
    last = 1 + sum(group.blocks for groups in STAGES for group in groups)
    return {
        "torchvision": (
            ("stem_conv", "features.0.0"),
            ("stem_bn", "features.0.1"),
            (r"stage(\d)_block(\d)/(.+)", _torchvision_block),
            ("final_conv", f"features.{last}.0"),
            ("final_bn", f"features.{last}.1"),
            ("classifier", "classifier.1"),
        ),
        "timm": (
            ("stem_conv", "conv_stem"),
            ("stem_bn", "bn1"),
            (r"stage(\d)_block(\d)/(.+)", _timm_block),
            ("final_conv", "conv_head"),
            ("final_bn", "bn2"),
            ("classifier", "classifier"),
        ),
    }


FAMILIES[ImageNetMobileNetV2] = Family(plain=_large)
FAMILIES[MobileNetV2] = Family(plain=_plain, branch=_BRANCH)
