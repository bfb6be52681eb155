"""What the official repositories call the modules of every network.

One file per family fills the table below; `kdjax.interop.mapping` reads it.
"""

from kdjax.interop.names import resnet, wide_resnet  # noqa: F401 (fill FAMILIES)
from kdjax.interop.names.base import FAMILIES, Family, Rules, rename

__all__ = ["FAMILIES", "Family", "Rules", "rename"]
