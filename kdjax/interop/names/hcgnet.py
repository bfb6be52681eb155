"""Names of HCGNets.

MCL and MCL-OKD put the stages under `features`, L-MCL beside it. L-MCL alone has branches, after
the first two stages.
"""

from __future__ import annotations

import re

import flax.linen as nn

from kdjax.errors import UserError
from kdjax.interop.names.base import FAMILIES, Family, Rules
from kdjax.models import HCGNet

_LAYERS = {
    "bn1": "conv1_1x1.norm",
    "conv1": "conv1_1x1.conv",
    "bn2": "conv2_3x3.norm",
    "conv2": "conv2_3x3.conv",
    "gates/local_bn": "conv_3x3.norm",
    "gates/local_conv": "conv_3x3.conv",
    "gates/local_context": "global_context3x3",
    "gates/local_score": "fc3x3",
    "gates/dilated_bn": "conv_5x5.norm",
    "gates/dilated_conv": "conv_5x5.conv",
    "gates/dilated_context": "global_context5x5",
    "gates/dilated_score": "fc5x5",
    "gates/update_fc": "fcall",
    "gates/update_bn": "bn_attention",
    "gates/forget_context": "global_forget_context",
    "gates/forget_fc1": "fc1",
    "gates/forget_bn": "bn_forget",
    "gates/forget_fc2": "fc2",
}


def _smg(index: str, layer: str) -> str:
    return f"SMG{int(index) + 1}.{_LAYERS[layer]}"


def _names(prefix: str) -> Rules:
    return (
        ("stem_conv", "features.conv0"),
        (r"stage(\d)_smg(\d+)/(.+)", lambda m: f"{prefix}HybridBlock{m[1]}.{_smg(m[2], m[3])}"),
        (r"stage(\d)_transition/(.+)", lambda m: f"{prefix}Transition{m[1]}.{_LAYERS[m[2]]}"),
        ("final_bn", f"{prefix}norm5"),
        ("classifier", "classifier"),
    )


def _plain(network: nn.Module) -> dict[str, Rules]:
    del network
    return {"MCL": _names("features."), "L-MCL": _names("")}


def _branch(network: nn.Module) -> Rules:
    """L-MCL's branches, each a list: hybrid block, transition, ..., hybrid block, BatchNorm."""
    last = network.num_stages

    def extractor(branch: str, stage: int, place: int) -> str:
        return f"block_extractor{branch}.{2 * (stage - int(branch) - 1) + place}"

    def smg(match: re.Match[str]) -> str:
        branch, stage, index, layer = match.groups()
        return f"{extractor(branch, int(stage), 0)}.{_smg(index, layer)}"

    def transition(match: re.Match[str]) -> str:
        branch, stage, layer = match.groups()
        return f"{extractor(branch, int(stage), 1)}.{_LAYERS[layer]}"

    return (
        (rf"branch{last}/.+", _unknown),
        (r"branch(\d)/stage(\d)_smg(\d+)/(.+)", smg),
        (r"branch(\d)/stage(\d)_transition/(.+)", transition),
        (r"branch(\d)/final_bn", lambda m: extractor(m[1], last, 1)),
        (r"branch(\d)/classifier", r"fc\1"),
    )


def _unknown(match: re.Match[str]) -> str:
    branch, _, _ = match[0].partition("/")
    raise UserError(f"{branch} of an HCGNet, after its last stage, has no counterpart in PyTorch")


_SHARED: Rules = (
    (
        r"network_(\d+)/stage(\d)_smg(\d+)/(.+)",
        lambda m: f"layer{m[2]}_HybridBlock{m[1]}.{_smg(m[3], m[4])}",
    ),
    (
        r"network_(\d+)/stage(\d)_transition/(.+)",
        lambda m: f"layer{m[2]}_Transition{m[1]}.{_LAYERS[m[3]]}",
    ),
    (r"network_(\d+)/final_bn", r"norm5_\1"),
    (r"network_(\d+)/classifier", r"linear_\1"),
)

FAMILIES[HCGNet] = Family(plain=_plain, branch=_branch, branched="L-MCL", shared=_SHARED)
