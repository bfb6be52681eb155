"""A table of what a network and its compact version cost: parameters, operations, latency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from kdjax import models
from kdjax.compaction.latency import Program, alternate
from kdjax.networks import Network
from kdjax.pruning import accounting

BATCH_SIZES = (1, 128)  # whose latency is measured
_ROUNDS, _BUDGET = 25, 20.0  # seconds per batch size

Row = tuple[str, str, str, float]


def cost_table(
    before: Network, after: Network, image_shape: Sequence[int], rate: float | None = None
) -> str:
    """A text table of the sizes and costs of two networks, and of their ratios.

    Args:
      before, after: the networks.
      image_shape: the shape `(H, W, C)` of the input image.
      rate: the pruning rate in the papers' formula, where that applies to the network.
    """
    pair = [(network.module(), network.variables) for network in (before, after)]
    sizes = [models.parameter_count(variables["params"]) for _, variables in pair]
    macs = [models.multiply_adds(network, image_shape) for network, _ in pair]
    rows = [
        _row("parameters", [f"{n:,}" for n in sizes], sizes[1] / sizes[0]),
        _row("multiply-adds", [f"{n / 1e6:.3f} M" for n in macs], macs[1] / macs[0]),
    ]
    rows += _papers_row(pair[0][0], image_shape, rate)
    for batch_size in BATCH_SIZES:
        programs = [Program(*arguments, image_shape, batch_size) for arguments in pair]
        if batch_size == 1:
            rows += _flops_row(*(program.flops for program in programs))
        rows.append(_latency_row(batch_size, programs))
    size = "x".join(map(str, image_shape))
    width = max(len(row[0]) for row in rows)
    lines = [f"{f'images of {size}':{width}} {'before':>12} {'after':>12} {'after / before':>15}"]
    lines += [f"{name:{width}} {a:>12} {b:>12} {ratio:>15.3f}" for name, a, b, ratio in rows]
    device = jax.devices()[0].device_kind
    lines.append(
        f"latency is this machine's ({device}): of alternating rounds the fastest, and the median "
        "of their ratios"
    )
    return "\n".join(lines)


def _row(name: str, texts: Sequence[str], ratio: float) -> Row:
    before, after = texts
    return name, before, after, ratio


def _papers_row(network: Any, image_shape: Sequence[int], rate: float | None) -> list[Row]:
    if rate is None or tuple(image_shape) != (32, 32, 3) or not _official(network):
        return []
    depth = 6 * network.blocks[0] + 2
    dense, pruned = accounting.cifar_resnet(depth).macs, accounting.cifar_resnet(depth, rate).macs
    name = f"by the papers' formula, rate {rate:.3g}"
    return [(name, f"{dense / 1e6:.3f} M", f"{pruned / 1e6:.3f} M", pruned / dense)]


def _official(network: Any) -> bool:
    """Whether a network has the architecture that `accounting.cifar_resnet` describes."""
    return (
        isinstance(network, models.CifarResNet)
        and (network.block, network.shortcut) == ("basic", "padding")
        and len(set(network.blocks)) == 1
        and (network.stem_width, *network.widths) == (16, *accounting.WIDTHS)
    )


def _flops_row(before: float | None, after: float | None) -> list[Row]:
    if not before or not after:
        return []
    texts = [f"{n / 1e6:.3f} M" for n in (before, after)]
    return [_row("FLOPs, as XLA counts", texts, after / before)]


def _latency_row(batch_size: int, programs: Sequence[Program]) -> Row:
    seconds = alternate(programs, rounds=_ROUNDS, budget=_BUDGET)
    texts = [f"{1e3 * fastest:.3f} ms" for fastest in np.min(seconds, axis=0)]
    ratio = float(np.median(seconds[:, 1] / seconds[:, 0]))
    return _row(f"latency, batch {batch_size}", texts, ratio)
