"""Networks from which filters have been removed: the same module, run with narrower layers.

Nothing of a family is written twice. The network builds its layers as always; while it runs,
`narrowed` makes those that its `compaction` names narrower, in their place and under their names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from kdjax.models import channels

if TYPE_CHECKING:
    from kdjax.models.staged import StagedNetwork


@dataclasses.dataclass(frozen=True)
class Compaction:
    """Which filters of a network are left.

    Attributes:
      kept: pairs (name of a `Link`, a character for each filter of the dense network: '1' if it
        is left, '0' if it was removed). Links that are whole have none.
      sums: names of the residual sums (`ResidualGroup`) that have lost the channels that their
        summands have lost, which all lack the same ones. All others keep their width.
      constants: whether the removed channels are constants other than zero, see `narrowed`.
    """

    kept: tuple[tuple[str, str], ...]
    sums: tuple[str, ...] = ()
    constants: bool = False

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """`{name: bool [C]}`, True for the filters that are left of the dense network's C."""
        return {name: np.array([char == "1" for char in kept]) for name, kept in self.kept}

    @classmethod
    def of(
        cls, masks: Mapping[str, np.ndarray], sums: Iterable[str] = (), constants: bool = False
    ) -> Compaction:
        """What has these `masks`; those of whole links are left out."""
        kept = {n: "".join("01"[bool(x)] for x in mask) for n, mask in sorted(masks.items())}
        narrow = tuple((n, each) for n, each in kept.items() if "0" in each)
        return cls(narrow, tuple(sums), constants)

    def as_dict(self) -> dict[str, Any]:
        """All of it, for a JSON file."""
        return {"kept": dict(self.kept), "sums": list(self.sums), "constants": self.constants}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Compaction:
        """The inverse of `as_dict`."""
        return cls(tuple(saved["kept"].items()), tuple(saved["sums"]), saved["constants"])


class Narrow(NamedTuple):
    """How one layer differs from that of the dense network. Masks are over the dense channels.

    Attributes:
      filters: `[C]`, the channels that the layer computes; None: all.
      reads: `[C]`, the channels of its input that it uses; None: all that it gets.
      select: whether those have to be picked out of an input of full width.
      first: whether the layer is the convolution that makes the channels, not one behind it.
      widen: whether zeros are put in the places of the channels that it does not compute.
      conv: the convolution that makes them.
      folded: whether a parameter stands for constant channels of its input.
    """

    filters: np.ndarray | None = None
    reads: np.ndarray | None = None
    select: bool = False
    first: bool = False
    widen: bool = False
    conv: str = ""
    folded: bool = False


def narrow_layers(network: StagedNetwork) -> dict[str, Narrow]:
    """The layers of a network that differ from the dense ones, by their paths."""
    if network.compaction is None:
        return {}
    masks, constants = network.compaction.masks, network.compaction.constants
    plan: dict[str, Narrow] = {}

    def change(path: str, **fields: Any) -> None:
        plan[path] = plan.get(path, Narrow())._replace(**fields)

    sums = [each for each in network.residual_groups() if each.name in network.compaction.sums]
    within = {conv for each in sums for conv in each.convs}
    for each in sums:
        for norm in each.norms:
            change(norm, filters=masks[each.convs[0]])
        for consumer in each.consumers:
            change(consumer, reads=masks[each.convs[0]])
    for link in network.filter_links():
        if link.name not in masks:
            continue
        mask = masks[link.name]
        whole = (link.shared or not link.consumers) and link.name not in within
        narrow = [*link.convs, *filter(None, link.norms)]
        if whole and constants and link.norms[-1]:
            narrow.remove(link.norms[-1])  # makes the constants
        for layer in narrow:
            change(layer, filters=mask)
        change(link.name, first=True)
        if whole:
            change(narrow[-1] if constants else link.last, widen=True, conv=link.convs[-1])
        for consumer in link.consumers:
            change(consumer, reads=mask, select=whole, folded=constants)
    return plan


@contextlib.contextmanager
def narrowed(network: StagedNetwork) -> Iterator[None]:
    """While this is open, `network` runs as its `compaction` says; without one, nothing changes.

    A convolution has only the filters that are left, and so has the BatchNorm behind it. What
    happens to the channels of the others depends on who reads them (`Link`):

    - Consumers have no weights for them.
    - Where channels go into a sum, a concatenation, a gate or another BatchNorm, they are put back
      to full width, so that everything else is as before, unless it is a sum that the
      `Compaction` names.
    - A grouped convolution has as many filters in every group, groups without any excepted; those
      are left out with their inputs.

    With `constants`, the channels that are missing are constants: the filter's output is zero, but
    BatchNorm makes something else of it. Where they are put back, it still does, at full width.
    Where consumers have no weights for them, what they added to a convolution's output is made by
    the parameter 'folded' `[k, k, 1, C]`, the sum of the missing weights, each times its constant;
    on the padding of the image there is nothing to add. In a fully connected layer it is part of
    the bias. These are the constants of evaluation; in training, BatchNorm makes others of a zero
    filter. If such a network is trained on, 'folded' is a parameter as all others, no longer tied
    to what it was made from.
    """
    plan = narrow_layers(network)
    if not plan:
        yield
        return
    depth = len(network.path)
    costs: dict[str, int] = {}

    def run(call, args, kwargs, context):
        path = "/".join(context.module.path[depth:])
        narrow = plan.get(path)
        if narrow is None or context.method_name != "__call__":
            return call(*args, **kwargs)
        y = _run(narrow, context.module, call, *args, **kwargs)
        if isinstance(context.module, nn.Conv):
            costs[path] = math.prod(context.module.get_variable("params", "kernel").shape[:-1])
        return channels.widen(y, narrow.filters, costs[narrow.conv]) if narrow.widen else y

    with nn.intercept_methods(run):
        yield


def _run(narrow: Narrow, module: nn.Module, call, x: jax.Array, *args, **kwargs) -> jax.Array:
    fields = {}
    if narrow.select:
        x = channels.select(x, narrow.reads, _outputs(module))
    if isinstance(module, nn.Conv) and narrow.filters is not None:
        fields["features"] = int(narrow.filters.sum())
        if module.feature_group_count > 1:
            alive = narrow.filters
            if narrow.first:
                alive = alive.reshape(module.feature_group_count, -1).any(1)
                x = channels.select(x, np.repeat(alive, x.shape[-1] // len(alive)), 0)
            fields["feature_group_count"] = int(alive.sum())
    with changed(module, **fields):
        y = call(x, *args, **kwargs)
    if narrow.folded and isinstance(module, nn.Conv):
        shape = (*module.kernel_size, 1, y.shape[-1])
        folded = module.param("folded", nn.initializers.zeros_init(), shape, jnp.float32)
        y = y + channels.of_constant(module, folded, x.shape[1:3]).astype(y.dtype)
    return y


@contextlib.contextmanager
def changed(module: nn.Module, **fields: Any) -> Iterator[None]:
    """A module with other fields, for one call.

    Linen modules are frozen, and a changed copy would be a second layer to those who count layers
    (`multiply_adds`).
    """
    before = {name: getattr(module, name) for name in fields}
    try:
        for name, value in fields.items():
            object.__setattr__(module, name, value)
        yield
    finally:
        for name, value in before.items():
            object.__setattr__(module, name, value)


def _outputs(layer: nn.Module) -> int:
    """Weights of one input channel."""
    return math.prod(layer.kernel_size) * layer.features if isinstance(layer, nn.Conv) else 0
