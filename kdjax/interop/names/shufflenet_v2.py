"""Names of ShuffleNets of version 2, which HSAKD, MCL and L-MCL share, and torchvision's."""

from __future__ import annotations

import re

import flax.linen as nn

from kdjax.interop.names.base import FAMILIES, Family, Rules
from kdjax.models import ImageNetShuffleNetV2, ShuffleNetV2


def _layer(block: str, layer: str) -> str:
    """Layers of a unit are counted through: conv1 and conv2 of a first unit are its shortcut's."""
    match = re.fullmatch(r"(shortcut_)?(conv|bn)(\d)", layer)
    if match is None:
        raise KeyError(layer)
    shortcut, kind, number = match.groups()
    ahead = 2 if block == "0" and not shortcut else 0
    return f"{kind}{int(number) + ahead}"


def _plain(unit_stages_from: int) -> Rules:
    """Names of a network whose units begin at this stage."""

    def unit(match: re.Match[str]) -> str:
        stage, block, layer = match.groups()
        return f"layer{int(stage) - unit_stages_from + 1}.{block}.{_layer(block, layer)}"

    return (
        ("stem_conv", "conv1"),
        ("stem_bn", "bn1"),
        (r"stage(\d)_block(\d+)/(.+)", unit),
        ("final_conv", "conv2"),
        ("final_bn", "bn2"),
        ("classifier", "linear"),
    )


def _branch(num_stages: int) -> Rules:
    """Names of a branch: a sequence of its stages, the last convolution and its BatchNorm."""

    def unit(match: re.Match[str]) -> str:
        branch, stage, block, layer = match.groups()
        place = int(stage) - int(branch) - 1
        return f"block_extractor{branch}.{place}.{block}.{_layer(block, layer)}"

    def final(match: re.Match[str]) -> str:
        branch, kind = match.groups()
        # The branch after the last stage has one stage too, an extra one.
        stages = max(num_stages - int(branch), 1)
        return f"block_extractor{branch}.{stages + (kind == 'bn')}"

    return (
        (r"branch(\d)/stage(\d)_block(\d+)/(.+)", unit),
        (r"branch(\d)/final_(conv|bn)", final),
        (r"branch(\d)/classifier", r"fc\1"),
    )


_SHARED: Rules = (
    (
        r"network_(\d+)/stage(\d)_block(\d+)/(.+)",
        lambda m: f"layer{m[2]}_{m[1]}.{m[3]}.{_layer(m[3], m[4])}",
    ),
    (r"network_(\d+)/final_(conv|bn)", r"\g<2>2_\1"),
    (r"network_(\d+)/classifier", r"classifier_\1"),
)


def _small(network: nn.Module) -> dict[str, Rules]:
    del network
    return {"MCL": _plain(unit_stages_from=1)}


# Places in torchvision's sequences of a unit; the ReLUs are counted too.
_PLACES = {
    "shortcut_conv1": "branch1.0",
    "shortcut_bn1": "branch1.1",
    "shortcut_conv2": "branch1.2",
    "shortcut_bn2": "branch1.3",
    "conv1": "branch2.0",
    "bn1": "branch2.1",
    "conv2": "branch2.3",
    "bn2": "branch2.4",
    "conv3": "branch2.5",
    "bn3": "branch2.6",
}
_TORCHVISION: Rules = (
    ("stem_conv", "conv1.0"),
    ("stem_bn", "conv1.1"),
    (r"stage(\d)_block(\d+)/(.+)", lambda m: f"stage{m[1]}.{m[2]}.{_PLACES[m[3]]}"),
    ("final_conv", "conv5.0"),
    ("final_bn", "conv5.1"),
    ("classifier", "fc"),
)


def _large(network: nn.Module) -> dict[str, Rules]:
    del network
    return {"L-MCL": _plain(unit_stages_from=2), "torchvision": _TORCHVISION}


FAMILIES[ShuffleNetV2] = Family(plain=_small, branch=_branch(num_stages=3), shared=_SHARED)
FAMILIES[ImageNetShuffleNetV2] = Family(
    plain=_large, branch=_branch(num_stages=4), branched="L-MCL"
)
