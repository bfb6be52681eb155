"""Networks with their weights: what they are, where they are kept, and how they are read."""

from kdjax.networks.network import Network
from kdjax.networks.normalization import NAMED, Normalization, renormalization
from kdjax.networks.spec import InputSpec, NetworkSpec
from kdjax.networks.store import load, save
from kdjax.segmentation import deeplab as _deeplab  # noqa: F401 (registers its form)

__all__ = [
    "NAMED",
    "InputSpec",
    "Network",
    "NetworkSpec",
    "Normalization",
    "load",
    "renormalization",
    "save",
]
