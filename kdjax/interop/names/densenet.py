"""Names of DenseNets. No official repository gives them branches."""

from __future__ import annotations

import flax.linen as nn

from kdjax.interop.names.base import FAMILIES, Family, Rules
from kdjax.models import DenseNet


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


_SHARED: Rules = (
    (
        r"network_(\d)/stage(\d)_layer(\d+)/(.+)",
        lambda m: f"layer{m[2]}_{m[1]}.{_layer(m[3], m[4])}",
    ),
    (r"network_(\d)/stage(\d)_transition/(.+)", lambda m: f"layer{m[2]}_tran{m[1]}.{_part(m[3])}"),
    (r"network_(\d)/final_bn", r"norm_final_\1"),
    (r"network_(\d)/classifier", r"classifier_\1"),
)

FAMILIES[DenseNet] = Family(plain=_plain, shared=_SHARED)
