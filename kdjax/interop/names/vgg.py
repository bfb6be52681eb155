"""Names of VGG networks."""

from __future__ import annotations

import re
from collections.abc import Sequence

import flax.linen as nn

from kdjax.interop.names.base import FAMILIES, Family, Rules
from kdjax.models import VGG, GatedCohort, MaxPoolVGG, PeerAttentionCohort, TreeCohort

_LAYER = r"(conv|bn)(\d)"


def _place(kind: str, number: str) -> int:
    """Where the `number`-th convolution or BatchNorm of a block stands: ReLUs are counted too."""
    return 3 * (int(number) - 1) + (kind == "bn")


def _hsakd(match: re.Match[str]) -> str:
    stage, block, kind, number = match.groups()
    return f"block{int(stage) - 1 + int(block)}.{_place(kind, number)}"


def _extractor(match: re.Match[str]) -> str:
    """A branch is a flat list of pools, blocks and ReLUs; after the last stage there is no pool."""
    branch, stage, block, kind, number = match.groups()
    first = 3 * (int(stage) - int(branch) - 1) + (int(stage) <= 4)
    return f"block_extractor{branch}.{first + 2 * int(block)}.{_place(kind, number)}"


def _layered(prefix: str, match: re.Match[str]) -> str:
    stage, kind, number = match.groups()[-3:]
    return f"{prefix.format(int(stage) - 1)}.{_place(kind, number)}"


def _plain(network: nn.Module) -> dict[str, Rules]:
    del network
    return {
        "HSAKD": (
            (rf"stage(\d)_block(\d)/{_LAYER}", _hsakd),
            ("classifier", "classifier"),
        )
    }


_BRANCH: Rules = (
    (rf"branch(\d)/stage(\d)_block(\d)/{_LAYER}", _extractor),
    (r"branch(\d)/classifier", r"fc\1"),
)

FAMILIES[VGG] = Family(plain=_plain, branch=_BRANCH)


def _features(convs: Sequence[int], match: re.Match[str]) -> str:
    """One flat list: a pool after every block; a convolution has a BatchNorm and a ReLU."""
    stage, kind, number = match.groups()
    before = convs[: int(stage) - 1]
    return f"features.{3 * sum(before) + len(before) + _place(kind, number)}"


def _max_pool_plain(network: MaxPoolVGG) -> dict[str, Rules]:
    return {
        "MCL-OKD": (
            (rf"stage1_block0/{_LAYER}", r"\1\2"),
            (rf"stage(\d)_block0/{_LAYER}", lambda m: _layered("layer{}", m)),
            ("classifier", "classifier.0"),
        ),
        "torchvision": (  # with one classifier in place of three layers
            (rf"stage(\d)_block0/{_LAYER}", lambda m: _features(network.convs, m)),
            ("classifier", "classifier"),
        ),
    }


def _max_pool_shared(cohort: nn.Module) -> Rules:
    """ONE, OKDDip and CL-ILR have classifiers in lists of one, DML and MCL-OKD have them bare."""
    listed = isinstance(cohort, GatedCohort | PeerAttentionCohort | TreeCohort)
    return (
        (
            rf"network_(\d+)/stage(\d)_block0/{_LAYER}",
            lambda m: _layered(f"layer{{}}_{m[1]}", m),
        ),
        (r"network_(\d+)/classifier", r"classifier_\1.0" if listed else r"classifier_\1"),
    )


FAMILIES[MaxPoolVGG] = Family(plain=_max_pool_plain, shared=_max_pool_shared)
