"""Names of ShuffleNets of version 1."""

from __future__ import annotations

import re

import flax.linen as nn

from kdjax.interop.names.base import FAMILIES, Family, Rules
from kdjax.models import ShuffleNetV1


def _extractor(match: re.Match[str]) -> str:
    """Stages of a branch are counted from where it starts."""
    branch, stage, block, layer = match.groups()
    return f"block_extractor{branch}.{int(stage) - int(branch) - 1}.{block}.{layer}"


def _plain(network: nn.Module) -> dict[str, Rules]:
    del network
    return {
        "HSAKD": (
            ("stem_conv", "conv1"),
            ("stem_bn", "bn1"),
            (r"stage(\d)_block(\d+)/(.+)", r"layer\1.\2.\3"),
            ("classifier", "linear"),
        )
    }


_BRANCH: Rules = (
    (r"branch(\d)/stage(\d)_block(\d+)/(.+)", _extractor),
    (r"branch(\d)/classifier", r"fc\1"),
)

FAMILIES[ShuffleNetV1] = Family(plain=_plain, branch=_BRANCH)
