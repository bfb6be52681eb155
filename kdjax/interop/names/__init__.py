"""What the official repositories call the modules of every network.

One file per family fills the table below; `kdjax.interop.mapping` reads it.
"""

from kdjax.interop.names import (  # noqa: F401 (fill FAMILIES)
    densenet,
    hcgnet,
    mobilenet_v2,
    resnet,
    shufflenet_v1,
    shufflenet_v2,
    vgg,
    wide_resnet,
)
from kdjax.interop.names.base import FAMILIES, Family, Rules, rename

__all__ = ["FAMILIES", "Family", "Rules", "rename"]
