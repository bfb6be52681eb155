"""Names of DeepLabV3 in torchvision."""

from __future__ import annotations

import functools

from kdjax.interop import mapping
from kdjax.interop.names.base import Rules, rename
from kdjax.interop.state_dict_entries import Naming
from kdjax.segmentation.deeplab import DeepLabV3

_LAYER = {"conv": "0", "bn": "1"}
_POOLED = {"conv": "1", "bn": "2"}  # the mean itself is the layer before
_AUXILIARY = {"conv": "0", "bn": "1", "classifier": "4"}
_HEAD = {"conv": "1", "bn": "2", "classifier": "4"}

_HEADS: Rules = (
    (r"head/aspp/point_(.+)", lambda m: f"classifier.0.convs.0.{_LAYER[m[1]]}"),
    (r"head/aspp/rate(\d)_(.+)", lambda m: f"classifier.0.convs.{m[1]}.{_LAYER[m[2]]}"),
    (r"head/aspp/pool_(.+)", lambda m: f"classifier.0.convs.4.{_POOLED[m[1]]}"),
    (r"head/aspp/project_(.+)", lambda m: f"classifier.0.project.{_LAYER[m[1]]}"),
    (r"head/(\w+)", lambda m: f"classifier.{_HEAD[m[1]]}"),
    (r"auxiliary/(\w+)", lambda m: f"aux_classifier.{_AUXILIARY[m[1]]}"),
)


@mapping.namings.register
def _deeplab(module: DeepLabV3) -> dict[str, Naming]:
    def naming(backbone_naming: Naming, path: str) -> str:
        owner, _, rest = path.partition("/")
        return f"backbone.{backbone_naming(rest)}" if owner == "backbone" else rename(_HEADS, path)

    dialects = mapping.namings(module.network)
    return {name: functools.partial(naming, backbone) for name, backbone in dialects.items()}
