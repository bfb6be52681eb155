"""The constants that zero filters emit: who reads them, and where they can move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from kdjax.compaction.channel_flow import FIXED, Contraction, Flow
from kdjax.compaction.contraction_rules import Zero, per_channel
from kdjax.compaction.link_table import Links, layer_of


class Read(NamedTuple):
    """What a layer reads of its N channels.

    Attributes:
      layer: the layer's kernel, and where its output goes.
      inputs: `[N]`, the channels.
      values: `[N]`, of the channels that are constants.
      known: `[N]`, whether they are.
      factor: `[C]` or `[1]`, what its output is multiplied by before the parameter of the slot is
        added; None if there is none.
    """

    layer: Contraction
    inputs: np.ndarray
    values: np.ndarray
    known: np.ndarray
    factor: np.ndarray | None

    @property
    def moves(self) -> bool:
        """Whether the constants can move into the slot without a difference."""
        return self.factor is not None and not self.layer.padded

    def removed(self, links: Links, removed: np.ndarray) -> np.ndarray:
        """Which of the N channels are removed."""
        return removed[links.component[self.inputs]] & (self.inputs != FIXED)


def reads(
    flow: Flow, arrays: Mapping[str, np.ndarray], zero: Mapping[str, np.ndarray]
) -> list[Read]:
    """What all layers read, with the filters zero that `zero` names: `{kernel: bool [C]}`."""
    layers = [each for each in flow.contractions if each.inputs is not None]
    given: dict[Any, np.ndarray] = dict(arrays)
    for each in flow.contractions:
        given[Zero(each.kernel)] = zero.get(each.kernel, np.zeros(1, bool))
    nodes = [each.constant for each in layers]
    nodes += [
        each.slot[1].factor if each.slot and each.foldable else flow.unknown for each in layers
    ]
    constants = flow.evaluate(nodes, given)
    result = []
    for layer, constant, factor in zip(
        layers, constants[: len(layers)], constants[len(layers) :], strict=True
    ):
        inputs = np.asarray(layer.inputs)
        values, known = per_channel(constant, layer.channel_axis, len(inputs))
        factors = np.asarray(factor.values).ravel() if np.all(factor.known) else None
        result.append(Read(layer, inputs, np.asarray(values), np.asarray(known), factors))
    return result


def keep_unknown(
    links: Links, reads: list[Read], removed: np.ndarray, reasons: dict[int, str]
) -> None:
    """Keeps channels that some layer reads as something else than a constant, in place."""
    for read in reads:
        reason = (
            f"no constant where {layer_of(read.layer.kernel)} reads it (tied layers must agree)"
        )
        _keep(links, read, read.removed(links, removed) & ~read.known, removed, reasons, reason)


def keep_inexact(
    links: Links, reads: list[Read], removed: np.ndarray, reasons: dict[int, str]
) -> None:
    """Keeps channels whose constants cannot move without a difference, in place."""
    for read in reads:
        moving = read.removed(links, removed) & (read.values != 0)
        if not read.moves and moving.any():
            _keep(links, read, moving, removed, reasons, _difference(read, moving))


def inexact_layers(links: Links, reads: list[Read], removed: np.ndarray) -> dict[str, str]:
    """The layers that read something else without the removed channels, and what."""
    layers = {}
    for read in reads:
        moving = read.removed(links, removed) & (read.values != 0)
        if not read.moves and moving.any():
            layers[layer_of(read.layer.kernel)] = _difference(read, moving)
    return layers


def _difference(read: Read, moving: np.ndarray) -> str:
    largest = np.abs(read.values[moving]).max()
    layer = layer_of(read.layer.kernel)
    if read.factor is None:
        return f"constants up to {largest:.3g}, and no bias or BatchNorm behind {layer} to move to"
    return f"constants up to {largest:.3g}, at the borders that {layer} pads with zeros"


def _keep(
    links: Links,
    read: Read,
    positions: np.ndarray,
    removed: np.ndarray,
    reasons: dict[int, str],
    reason: str,
) -> None:
    for component in np.unique(links.component[read.inputs[positions]]).tolist():
        removed[component] = False
        reasons.setdefault(component, reason)


def folded(
    links: Links, arrays: Mapping[str, np.ndarray], reads: list[Read], removed: np.ndarray
) -> dict[str, np.ndarray]:
    """The parameters that take what removed constant channels contributed, by their paths."""
    changed: dict[str, np.ndarray] = {}
    for read in reads:
        moving = read.removed(links, removed) & (read.values != 0)
        layer = read.layer
        if read.factor is None or layer.slot is None or not moving.any():
            continue
        term, _ = layer.slot
        kernel = np.asarray(arrays[layer.kernel], np.float64)
        axes = (
            links.axis(layer.kernel, layer.kernel_inputs),
            links.axis(layer.kernel, layer.outputs),
        )
        kernel = np.moveaxis(kernel, axes, (0, 1))
        kernel = kernel.reshape(*kernel.shape[:2], -1).sum(-1)
        contribution = np.where(moving, read.values, 0).astype(np.float64) @ kernel
        shift = term.sign * read.factor.astype(np.float64) * contribution
        array = changed.get(term.path, np.asarray(arrays[term.path], np.float64))
        changed[term.path] = array + shift.reshape(array.shape)
    return {path: array.astype(arrays[path].dtype) for path, array in changed.items()}
