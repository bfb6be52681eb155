"""torchvision's names of detectors, new and old."""

from __future__ import annotations

import functools

from kdjax.detection.detector import Detector
from kdjax.errors import UserError
from kdjax.interop import mapping
from kdjax.interop.names.base import Rules, rename
from kdjax.interop.state_dict_entries import Naming

_BOX_HEAD: Rules = (
    (r"box_heads_0/hidden([12])", lambda m: f"roi_heads.box_head.fc{int(m[1]) + 5}"),
    ("box_heads_0/classifier", "roi_heads.box_predictor.cls_score"),
    ("box_heads_0/codes", "roi_heads.box_predictor.bbox_pred"),
    ("proposals/objectness", "rpn.head.cls_logits"),
    ("proposals/codes", "rpn.head.bbox_pred"),
)


def _rules(inside: str, conv: str) -> Rules:
    """Rules in which convolutions stand in a container, at `inside`, or not."""
    return (
        (r"pyramid/lateral(\d)", lambda m: f"backbone.fpn.inner_blocks.{int(m[1]) - 1}{inside}"),
        (r"pyramid/output(\d)", lambda m: f"backbone.fpn.layer_blocks.{int(m[1]) - 1}{inside}"),
        ("proposals/conv", f"rpn.head.conv{conv}"),
        *_BOX_HEAD,
    )


_DIALECTS = {"torchvision": _rules(".0", ".0.0"), "torchvision/old": _rules("", "")}


@mapping.namings.register
def _detector(detector: Detector) -> dict[str, Naming]:
    if detector.heads > 1:
        raise UserError("Cascade R-CNN has no counterpart in torchvision, whose names are used")
    network = mapping.namings(detector.network)["torchvision"]

    def naming(rules: Rules, path: str) -> str:
        owner, _, rest = path.partition("/")
        return f"backbone.body.{network(rest)}" if owner == "backbone" else rename(rules, path)

    return {name: functools.partial(naming, rules) for name, rules in _DIALECTS.items()}
