"""Compact networks: the widths that a network's field `compaction` gives to its layers.

A family defines its network once, with the widths of the dense one. Every layer of
`kdjax.models.layers` takes from the network that it is in what is left of its channels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import flax.linen as nn
import jax
import numpy as np

from kdjax.models import channels

if TYPE_CHECKING:
    from kdjax.models.staged import StagedNetwork


@dataclasses.dataclass(frozen=True)
class Compaction:
    """The remaining filters of a compact network.

    Attributes:
      kept: pairs (name of a `Link`, a string with '1' for every remaining and '0' for every removed
        filter of the dense network). Links without removed filters have no entry.
      sums: names of the residual sums (`ResidualGroup`) whose removed channels, the same in all
        summands, are removed from the sum as well. All other sums keep their width.
      constants: whether removed channels are constants other than zero, see `narrow_layers`.
    """

    kept: tuple[tuple[str, str], ...]
    sums: tuple[str, ...] = ()
    constants: bool = False

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """True for the remaining ones of the C filters of the dense network, bool `[C]` by name."""
        return {name: np.array([char == "1" for char in kept]) for name, kept in self.kept}

    @classmethod
    def of(
        cls, masks: Mapping[str, np.ndarray], sums: Iterable[str] = (), constants: bool = False
    ) -> Compaction:
        """The compaction with these `masks`; masks without removed filters are dropped."""
        bits_by_link = {
            n: "".join("01"[bool(x)] for x in mask) for n, mask in sorted(masks.items())
        }
        narrow_links = tuple((n, bits) for n, bits in bits_by_link.items() if "0" in bits)
        return cls(narrow_links, tuple(sums), constants)

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {"kept": dict(self.kept), "sums": list(self.sums), "constants": self.constants}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Compaction:
        """The inverse of `as_dict`."""
        return cls(tuple(saved["kept"].items()), tuple(saved["sums"]), saved["constants"])


class Narrow(NamedTuple):
    """The difference of one layer from the dense network's. Masks are over the dense channels.

    Attributes:
      filters: `[C]`, the output channels that the layer computes; None for all.
      reads: `[C]`, the input channels that the layer reads; None for the whole input.
      select: whether the input has full width, so that these channels must be selected.
      first: whether the layer is the convolution that the mask belongs to, not a layer after it.
      widen: whether the output is widened to C channels, with zeros for the removed ones.
      conv: the convolution that computes these channels.
      folded: whether a parameter replaces the contribution of constant input channels.
    """

    filters: np.ndarray | None = None
    reads: np.ndarray | None = None
    select: bool = False
    first: bool = False
    widen: bool = False
    conv: str = ""
    folded: bool = False

    def input_of(self, x: jax.Array, weights: int) -> jax.Array:
        """The channels of `x` `[..., C]` that the layer reads, with `weights` for each."""
        if self.reads is None or not self.select:
            return x
        return channels.select(x, self.reads, weights)


def narrow_layers(network: StagedNetwork) -> dict[str, Narrow]:
    """The layers of a compact network that differ from the dense network's, by path.

    A convolution and the BatchNorm after it have the remaining filters only. How removed channels
    are treated depends on the layers that read them (`Link`):

    - Consumers have no weights for them.
    - Before a sum, a concatenation, a gate or another BatchNorm the output is widened to its full
      number of channels, so that all other layers stay dense. Sums named by the `Compaction` are
      narrow.
    - A grouped convolution keeps equally many filters in every group; groups without filters are
      removed together with their inputs.

    With `constants`, removed channels are constants: the filter's output is zero, which BatchNorm
    maps to a constant. Where the output is widened, BatchNorm still runs at full width. Where
    consumers have no weights for the channels, their contribution to a convolution's output is
    computed from the parameter 'folded' `[k, k, 1, C]`, the sum of the removed weights times their
    constants; the padding contributes nothing. In a dense layer the contribution is part of the
    bias. The constants are those of evaluation; in training, BatchNorm would map a zero filter to
    others. When such a network is trained further, 'folded' is trained as any other parameter.
    """
    if network.compaction is None:
        return {}
    masks, constants = network.compaction.masks, network.compaction.constants
    plan: dict[str, Narrow] = {}

    def change(path: str, **fields: Any) -> None:
        plan[path] = plan.get(path, Narrow())._replace(**fields)

    sums = [group for group in network.residual_groups() if group.name in network.compaction.sums]
    within = {conv for group in sums for conv in group.convs}
    for group in sums:
        for norm in group.norms:
            change(norm, filters=masks[group.convs[0]])
        for consumer in group.consumers:
            change(consumer, reads=masks[group.convs[0]])
    for link in network.filter_links():
        if link.name not in masks:
            continue
        mask = masks[link.name]
        full_width = (link.shared or not link.consumers) and link.name not in within
        narrow = [*link.convs, *filter(None, link.norms)]
        if full_width and constants and link.norms[-1]:
            narrow.remove(link.norms[-1])  # computes the constants
        for layer in narrow:
            change(layer, filters=mask)
        change(link.name, first=True)
        if full_width:
            change(narrow[-1] if constants else link.last, widen=True, conv=link.convs[-1])
        for consumer in link.consumers:
            change(consumer, reads=mask, select=full_width, folded=constants)
    return plan


def network_of(layer: nn.Module) -> StagedNetwork | None:
    """The network that a bound layer is in, at any depth, or None."""
    module = layer.parent
    while isinstance(module, nn.Module):
        if hasattr(module, "compaction"):
            return cast("StagedNetwork", module)
        module = module.parent
    return None


def of_layer(layer: nn.Module) -> Narrow:
    """The difference of a bound layer from the dense network's."""
    network = network_of(layer)
    if network is None or not network.narrow_layers:
        return Narrow()
    path = "/".join(layer.path[len(network.path) :])
    return network.narrow_layers.get(path, Narrow())


def widened(layer: nn.Module, y: jax.Array) -> jax.Array:
    """The output of a bound layer, `[..., channels left]`, with zeros for the removed channels.

    Where no layer needs them, it is `y`.
    """
    network, narrow = network_of(layer), of_layer(layer)
    if network is None or narrow.filters is None or not narrow.widen:
        return y
    first, *others = narrow.conv.split("/")
    variables: Any = network.get_variable("params", first)
    for key in others:
        variables = variables[key]
    return channels.widen(y, narrow.filters, math.prod(variables["kernel"].shape[:-1]))
