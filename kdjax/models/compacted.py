"""Networks from which filters have been removed: the same module, run with narrower layers.

Nothing of a family is written twice. The network builds its layers as always; while it runs,
`narrowed` makes those that its `compaction` names narrower, in their place and under their names.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from kdjax.models.staged import StagedNetwork


@dataclasses.dataclass(frozen=True)
class Compaction:
    """Which filters of a network are left.

    Attributes:
      kept: pairs (name of a `Link`, a character for each filter of the dense network: '1' if it
        is left, '0' if it was removed). Links that are whole have none.
      sums: names of the residual sums (`Sum`) that have lost the channels that their summands have
        lost, which all lack the same ones. All others keep their width.
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
      folded: whether a parameter stands for constant channels of its input.
    """

    filters: np.ndarray | None = None
    reads: np.ndarray | None = None
    select: bool = False
    first: bool = False
    widen: bool = False
    folded: bool = False


def narrow_layers(network: StagedNetwork) -> dict[str, Narrow]:
    """The layers of a network that differ from the dense ones, by their paths."""
    if network.compaction is None:
        return {}
    masks, constants = network.compaction.masks, network.compaction.constants
    plan: dict[str, Narrow] = {}

    def change(path: str, **fields: Any) -> None:
        plan[path] = plan.get(path, Narrow())._replace(**fields)

    sums = [each for each in network.filter_sums() if each.name in network.compaction.sums]
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
            change(narrow[-1] if constants else link.last, widen=True)
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

    def run(call, args, kwargs, context):
        narrow = plan.get("/".join(context.module.path[depth:]))
        if narrow is None or context.method_name != "__call__":
            return call(*args, **kwargs)
        return _run(narrow, context.module, call, *args, **kwargs)

    with nn.intercept_methods(run):
        yield


def _run(narrow: Narrow, module: nn.Module, call, x: jax.Array, *args, **kwargs) -> jax.Array:
    fields = {}
    if narrow.select:
        x = _select(x, narrow.reads)
    if isinstance(module, nn.Conv) and narrow.filters is not None:
        fields["features"] = int(narrow.filters.sum())
        if module.feature_group_count > 1:
            alive = narrow.filters
            if narrow.first:
                alive = alive.reshape(module.feature_group_count, -1).any(1)
                x = _select(x, np.repeat(alive, x.shape[-1] // len(alive)))
            fields["feature_group_count"] = int(alive.sum())
    with changed(module, **fields):
        y = call(x, *args, **kwargs)
    if narrow.folded and isinstance(module, nn.Conv):
        shape = (*module.kernel_size, 1, y.shape[-1])
        folded = module.param("folded", nn.initializers.zeros_init(), shape, jnp.float32)
        y = y + _constant_input(module, folded, x.shape[1:3]).astype(y.dtype)
    return _widen(y, narrow.filters) if narrow.widen else y


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


def _select(x: jax.Array, mask: np.ndarray) -> jax.Array:
    return x if mask.all() else x[..., np.flatnonzero(mask)]


def _widen(y: jax.Array, mask: np.ndarray) -> jax.Array:
    """`[..., channels that are left]` to `[..., C]`, zeros for the others."""
    places = np.where(mask, np.cumsum(mask) - 1, 0)
    return jnp.where(mask, y[..., places], jnp.zeros((), y.dtype))


def _constant_input(conv: nn.Conv, kernel: jax.Array, size: Sequence[int]) -> jax.Array:
    """What `kernel` `[k, k, 1, C]` makes of an image of ones of this size, `[H', W', C]`.

    That is one of few vectors for each pixel: the sum of the taps that are not on the padding.
    """
    (rows, row), (columns, column) = (
        np.unique(_taps(conv, axis, size[axis]), axis=0, return_inverse=True) for axis in (0, 1)
    )
    sums = jnp.einsum(
        "ya,xb,abc->yxc",
        rows.astype(kernel.dtype),
        columns.astype(kernel.dtype),
        kernel[:, :, 0],
        precision="highest",
    )
    return sums[row.ravel()][:, column.ravel()]


def _taps(conv: nn.Conv, axis: int, size: int) -> np.ndarray:
    """`bool [pixels of the output, taps]`: whether a tap is on the image, along one axis."""
    before, after = conv.padding[axis]
    dilation, stride = conv.kernel_dilation[axis], conv.strides[axis]
    taps = np.arange(conv.kernel_size[axis]) * dilation
    starts = np.arange(-before, size + after - taps[-1], stride)
    places = starts[:, None] + taps
    return (places >= 0) & (places < size)
