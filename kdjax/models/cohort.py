"""Several networks with the same input, as one module."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax

from kdjax.errors import UserError
from kdjax.models.parts import Part, Parts, parts_below
from kdjax.models.staged import Hidden


@functools.cache
def _traced_once(train: bool, start: int) -> Callable[[Any, jax.Array], Any]:
    """`(network, x) -> outputs`, with one trace for networks that differ in their names only."""
    return nn.jit(lambda network, x: network(x, train, start=start))


class Cohort(nn.Module):
    """Jointly trained networks of equal or of different architectures.

    The variables of network i are under `network_i`. With `shared_stages = k` the stem and the
    first k stages exist once, under `trunk`, and every network goes on from there: the form in
    which MCL (models/resnet.py, models/wrn.py) builds four networks, with k = 1.

    The networks run one after the other in one program; a `vmap` over them would make grouped
    convolutions, which are slower.

    Attributes:
      networks: modules with the interface of `StagedNetwork`; or, if nothing is shared, `Branched`
        ones, whose results are `BranchedOutputs`.
      shared_stages: how many stages are shared; 0 shares nothing, not even the stem.
    """

    networks: tuple[Any, ...]
    shared_stages: int = 0

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, hidden: Hidden | None = None
    ) -> tuple[Any, ...]:
        """Images `[B, H, W, C]` to the `Outputs` of every network, in the order of `networks`.

        The features of shared stages are part of the `Outputs` of every network. `hidden` is what
        feature maps go through in every `StagedNetwork`, those of shared stages once.

        Raises:
          UserError: networks of different architectures are to share stages.
        """
        x, shared_features = images, {}
        options = {} if hidden is None else {"hidden": hidden}  # other networks take no such thing
        if self.shared_stages:
            self._check_equal()
            trunk = self.networks[0].clone(parent=self, name="trunk")
            shared_features = trunk(images, train, stop=self.shared_stages, **options).features
            x = shared_features[f"stage{self.shared_stages}"]
        outputs = []
        for index, network in enumerate(self.networks):
            # A copy, so that one module given twice is two networks with parameters of their own.
            network = network.clone(parent=self, name=f"network_{index}")
            if self._is_traced_once(index) and hidden is None:
                result = _traced_once(train, self.shared_stages)(network, x)
            elif self.shared_stages:
                result = network(x, train, start=self.shared_stages, **options)
            else:
                result = network(x, train, **options)
            if self.shared_stages:
                result = result._replace(features=shared_features | result.features)
            outputs.append(result)
        return tuple(outputs)

    @nn.nowrap
    def network_parts(self) -> Parts:
        """The networks, and the stages that they share."""
        trunk = {"trunk": Part(self.networks[0], shared=True)} if self.shared_stages else {}
        return trunk | parts_below(numbered(self.networks))

    @nn.nowrap
    def _is_traced_once(self, index: int) -> bool:
        """Whether network `index` is traced with an equal one, see `StagedNetwork.trace_once`."""
        network = self.networks[index]
        # flax.linen draws other initial weights inside of its jit.
        if self.is_initializing() or not getattr(network, "trace_once", False):
            return False
        if network.compaction is not None:
            return False
        others = (*self.networks[:index], *self.networks[index + 1 :])
        return any(one_architecture((network, other)) for other in others)

    @nn.nowrap
    def _check_equal(self) -> None:
        if not one_architecture(self.networks):
            raise UserError(
                f"shared_stages={self.shared_stages} needs networks of one architecture; "
                "name the same network for all, or set shared_stages=0"
            )


def numbered(networks: Sequence[nn.Module]) -> list[tuple[str, nn.Module]]:
    """Pairs ('network_0', network), ('network_1', network), ..."""
    return [(f"network_{index}", network) for index, network in enumerate(networks)]


def one_architecture(networks: Sequence[nn.Module]) -> bool:
    """Whether the networks are of one class with equal fields, so that they can share stages."""
    first, *others = (_architecture(network) for network in networks)
    return all(other == first for other in others)


def _architecture(network: nn.Module) -> tuple[Any, ...]:
    """The identity of a module: its class and its fields, except name and parent."""
    fields = (field.name for field in dataclasses.fields(network))
    values = {name: getattr(network, name) for name in fields if name not in ("parent", "name")}
    return type(network), values
