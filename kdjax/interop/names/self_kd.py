"""Names of networks with a self-teacher of their own, as in Self-KD-Lib: MixSKD and FRSKD."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from kdjax.interop import mapping
from kdjax.interop.names.base import Rules, rename
from kdjax.interop.state_dict_entries import Naming
from kdjax.models.bifpn import Pyramid
from kdjax.models.self_teacher import SelfTaught


@mapping.namings.register
def _self_taught(module: SelfTaught) -> dict[str, Naming]:
    head = "final_aux_classifier"
    names = {"self_teacher/conv": f"{head}.conv", "self_teacher/classifier": f"{head}.fc"}
    return mapping.extended(mapping.with_auxiliary(module), names)


def _place(first: int) -> Callable[[re.Match[str], str], str]:
    """Official lists begin with the first stage that has such a layer; stages count from 1."""

    def name(match: re.Match[str], kind: str) -> str:
        return f"layers.0.{kind}.{int(match[1]) - first}"

    return name


_from1, _from2 = _place(1), _place(2)


def _pointwise(layer: str) -> str:
    return {"conv": "conv.0.0", "bn": "conv.0.1"}[layer]


def _separable(layer: str) -> str:
    kind, index = layer[:-1], int(layer[-1])
    # From the second on, a ReLU is in front.
    return f"conv.{index}.{['depthwise', 'pointwise', 'bn'].index(kind) + (index > 0)}"


_PYRAMID: Rules = (
    (r"lateral_top_down(\d)/(.+)", lambda m: f"{_from1(m, 'lat_conv')}.{_pointwise(m[2])}"),
    (r"lateral_bottom_up(\d)/(.+)", lambda m: f"{_from2(m, 'lat_conv2')}.{_pointwise(m[2])}"),
    (r"upsample(\d)/(.+)", lambda m: f"{_from1(m, 'up_sample')}.1.{_pointwise(m[2])}"),
    (r"downsample(\d)/(.+)", lambda m: f"{_from2(m, 'down_sample')}.1.{_pointwise(m[2])}"),
    (r"top_down(\d)/(.+)", lambda m: f"{_from1(m, 'up_conv')}.{_separable(m[2])}"),
    (r"bottom_up(\d)/(.+)", lambda m: f"{_from2(m, 'down_conv')}.{_separable(m[2])}"),
    (r"top_down(\d)_weights", lambda m: _from1(m, "up_weight")),
    (r"bottom_up(\d)_weights", lambda m: _from2(m, "down_weight")),
    ("classifier", "fc"),
)


@mapping.namings.register
def _pyramid(module: Pyramid) -> dict[str, Naming]:
    def naming(backbone_naming: Naming, path: str) -> str:
        owner, _, rest = path.partition("/")
        if owner == "backbone":
            return f"backbone.{backbone_naming(rest)}"
        return f"bifpn.{rename(_PYRAMID, rest)}"

    return {
        dialect: functools.partial(naming, backbone_naming)
        for dialect, backbone_naming in mapping.namings(module.network).items()
    }
