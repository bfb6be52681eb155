"""Whether the layers of a network take their widths from it, which removal relies on."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import numpy as np

from kdjax.compaction.cutting import Arrays
from kdjax.errors import UserError
from kdjax.models import StagedNetwork
from kdjax.models.layers import BatchNorm
from kdjax.models.linear import Conv, Dense
from kdjax.models.narrowing import narrow_layers, network_of


def check_layers(dense: StagedNetwork, compact: StagedNetwork, arrays: Arrays) -> None:
    """Checks that layers of a network become narrower as its `compaction` says.

    Raises:
      UserError: a layer is not one of `kdjax.models.layers`, or does not know its network.
    """
    changed = [
        path
        for path, narrow in narrow_layers(compact).items()
        # Other layers are narrower by what they read.
        if narrow.select or narrow.widen or np.ndim(arrays.get(f"{path}/kernel", 0)) == 4
    ]
    if not changed:
        return
    asking = _asking_layers(dense, arrays)
    for path in changed:
        if path not in asking:
            raise UserError(
                f"{path!r} of {type(dense).__name__} does not take its width from the network: "
                "make it by kdjax.models.layers (conv, dense, BatchNorm), and use the network's "
                "field remat in place of nn.remat"
            )


def _asking_layers(network: StagedNetwork, arrays: Arrays) -> set[str]:
    """The paths of the layers that ask the network for their widths. Nothing is computed."""
    paths: set[str] = set()

    def note(module: nn.Module, method: str) -> bool:
        del method
        if isinstance(module, BatchNorm | Conv | Dense) and network_of(module) is not None:
            paths.add("/".join(module.path))
        return False

    first = network.filter_links()[0]  # reads the images
    channels = arrays[f"{first.name}/kernel"].shape[-2] * first.groups
    size = max(network.image_size, network.stride)
    images = jax.ShapeDtypeStruct((2, size, size, channels), np.float32)
    trace = functools.partial(network.init, capture_intermediates=note)
    jax.eval_shape(trace, jax.random.key(0), images)
    return paths
