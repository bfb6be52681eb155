"""Names of residual networks."""

from __future__ import annotations

import re
from collections.abc import Mapping

import flax.linen as nn

from kdjax.interop.names.base import FAMILIES, Family, Rules
from kdjax.models import CifarResNet, ImageNetResNet

# Layers of a block whose names differ.
_DOWNSAMPLE = {"shortcut_conv": "downsample.0", "shortcut_bn": "downsample.1"}
_SHORTCUT = {"shortcut_conv": "shortcut.0", "shortcut_bn": "shortcut.1"}
_PRUNING = {"conv1": "conv_a", "bn1": "bn_a", "conv2": "conv_b", "bn2": "bn_b"}


def _names(
    classifier: str,
    layers: Mapping[str, str] = _DOWNSAMPLE,
    stem: tuple[str, str] = ("conv1", "bn1"),
    stage: str = "layer",
) -> Rules:
    return (
        ("stem_conv", stem[0]),
        ("stem_bn", stem[1]),
        (
            r"stage(\d)_block(\d+)/(.+)",
            lambda m: f"{stage}{m[1]}.{m[2]}.{layers.get(m[3], m[3])}",
        ),
        ("classifier", classifier),
    )


def _is_resnetv2(network: nn.Module) -> bool:
    """Whether HSAKD has the network in models/resnetv2.py."""
    ordinary = network.stem_relu and network.shortcut == "projection"
    return ordinary and network.num_stages == 4


def _cifar(network: CifarResNet) -> dict[str, Rules]:
    if network.shortcut == "centered_padding":
        return {"option A": _names("linear")}
    if network.shortcut == "padding":
        return {"SFP": _names("classifier", _PRUNING, ("conv_1_3x3", "bn_1"), "stage_")}
    if network.block == "preactivation":
        return {"Self-KD-Lib": _names("fc", _SHORTCUT)}
    if network.shortcut == "convolution" or not network.stem_relu:
        return {"Self-KD-Lib": _names("fc")}
    if _is_resnetv2(network):
        return {"HSAKD": _names("linear", _SHORTCUT)}
    return {"HSAKD": _names("fc"), "MCL": _names("classifier")}


def _imagenet(network: ImageNetResNet) -> dict[str, Rules]:
    del network
    return {"torchvision": _names("fc")}


def _branch_layers(network: nn.Module) -> Mapping[str, str]:
    if isinstance(network, ImageNetResNet):
        return _DOWNSAMPLE
    shortcut = network.block == "preactivation" or _is_resnetv2(network)
    return _SHORTCUT if shortcut else _DOWNSAMPLE


def _branch(network: nn.Module) -> Rules:
    layers = _branch_layers(network)

    def extractor(match: re.Match[str]) -> str:
        """Stages of a branch are counted from where it starts."""
        branch, stage, block, layer = match.groups()
        place = int(stage) - int(branch) - 1
        return f"block_extractor{branch}.{place}.{block}.{layers.get(layer, layer)}"

    return (
        (r"branch(\d)/stage(\d)_block(\d+)/(.+)", extractor),
        (r"branch(\d)/classifier", r"fc\1"),
    )


def _heads(network: nn.Module) -> Rules:
    """Branches are counted from the last stage."""
    layers = _branch_layers(network)

    def number(branch: str) -> int:
        return network.num_stages - int(branch)

    def layer(match: re.Match[str]) -> str:
        branch, stage, block, layer = match.groups()
        return f"layer{stage}_head{number(branch)}.{block}.{layers.get(layer, layer)}"

    return (
        (r"branch(\d)/stage(\d)_block(\d+)/(.+)", layer),
        (r"branch(\d)/classifier", lambda m: f"fc_head{number(m[1])}"),
    )


_SHARED: Rules = (
    (
        r"network_(\d+)/stage(\d)_block(\d+)/(.+)",
        lambda m: f"layer{m[2]}_{m[1]}.{m[3]}.{_DOWNSAMPLE.get(m[4], m[4])}",
    ),
    (r"network_(\d+)/classifier", r"classifier_\1"),
)

FAMILIES[CifarResNet] = Family(plain=_cifar, branch=_branch, heads=_heads, shared=_SHARED)
FAMILIES[ImageNetResNet] = Family(plain=_imagenet, branch=_branch, heads=_heads, shared=_SHARED)
