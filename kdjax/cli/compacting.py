"""`--job=compact`: removes the zero filters of a trained network, and reports the savings."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from kdjax import compaction, models
from kdjax import config as configs
from kdjax.compaction.latency import Program, alternate
from kdjax.compaction.zero_filters import zero_filters
from kdjax.errors import UserError
from kdjax.models.outputs import outputs_of
from kdjax.networks import Network, load, store
from kdjax.pruning import accounting
from kdjax.runs import contents
from kdjax.runs import workdir as workdirs
from kdjax.runs.console import say
from kdjax.tree import leaves

TOLERANCE = 1e-5  # of logits, relative to the largest
BATCH_SIZES = (1, 128)  # whose latency is measured
_ROUNDS, _BUDGET = 25, 20.0  # seconds per batch size

Row = tuple[str, str, str, float]


def compact(
    workdir: Path,
    output: Path,
    *,
    network_index: int = 0,
    checkpoint: str = "best",
    config: ConfigDict | None = None,
    multiple: int = 1,
    recalibrate: int = 0,
) -> None:
    """Writes a network without its zero filters, and prints removed filters and savings.

    Args:
      workdir: of a run, or what `kdjax.networks.save` wrote. Of a network with branches the network
        itself is taken.
      output: where it goes, for everything that takes a trained network's directory.
      network_index, checkpoint: as in `kdjax.networks.load`.
      config: a run's own where None; of an imported network, needed to recalibrate.
      multiple: as in `compaction.remove_filters`.
      recalibrate: 0 removes exactly. Otherwise BatchNorm is removed with the filters, as in the
        papers, outputs change, and its statistics are estimated anew from so many training batches.

    Raises:
      UserError: nothing to remove or to read, `output` is in use, or the result does not compute
        what it should; nothing is written.
    """
    with contents.claimed(output, contents.COMPACT, "--output"):
        trained = load(workdir, network_index, checkpoint).backbone
        if config is None and store.is_run(workdir):
            config = workdirs.read_config(workdir)
        network: Any = trained.module()
        variables = trained.variables
        _check_zeros(network, variables, workdir)
        smaller = compaction.remove_filters(
            network, variables, drop_norms=recalibrate > 0, multiple=multiple
        )
        _check_removed(network, smaller.network, workdir)
        image_shape = trained.spec.input.shape
        spec = dataclasses.replace(trained.spec, compaction=smaller.network.compaction)
        result = Network(spec, smaller.variables)
        if recalibrate:
            batches = training_batches(config, trained, recalibrate)
            again = compaction.recalibrate_batch_norm(smaller.network, smaller.variables, batches)
            result = result._replace(variables=jax.device_get(again))
        else:
            _check_same(trained, result, image_shape)
        source = {
            "workdir": str(workdir),
            "network_index": network_index,
            "checkpoint": checkpoint,
        }
        store.write(output, result, source)
    say(compaction.removal_table(smaller.network, smaller.variables))
    say("")
    say(
        cost_table(trained, result, image_shape, _rate(network, smaller.network, variables, config))
    )
    say("")
    if recalibrate:
        say(
            "BatchNorm was removed with the filters, and its statistics are new: outputs have "
            "changed, evaluate it"
        )
    say(f"{trained.spec.name}, compact, {trained.spec.num_classes} classes: {output}")


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


def _rate(network: Any, smaller: Any, variables: Any, config: ConfigDict | None) -> float:
    """The pruning rate of the run's config, or else the fraction of removed filters."""
    if config is not None and config.pruning.method:
        return config.pruning.rate
    masks, total = smaller.compaction.masks, 0
    for link in network.filter_links():
        kernel = leaves(variables["params"])[f"{link.name}/kernel"]
        total += masks[link.name].size if link.name in masks else kernel.shape[-1]
    return sum(int((~mask).sum()) for mask in masks.values()) / total


def _check_zeros(network: Any, variables: Any, workdir: Path) -> None:
    """Raises `UserError` if no filter is zero. A network without links is `compact`'s to refuse."""
    arrays = leaves(variables["params"])
    links = network.filter_links()
    if links and not any(zero_filters(link, arrays).any() for link in links):
        raise UserError(
            f"no filter of the network in {workdir} is zero: there is nothing to remove; train "
            "with config.pruning.method, for instance --config configs/sfp.py"
        )


def _check_removed(network: Any, smaller: Any, workdir: Path) -> None:
    before = () if network.compaction is None else network.compaction.kept
    if smaller.compaction.kept == before:
        raise UserError(
            f"no zero filter of the network in {workdir} can be removed: groups of a grouped "
            "convolution keep equally many, and --multiple rounds up"
        )


def _check_same(before: Network, after: Network, image_shape: Sequence[int]) -> None:
    """Raises `UserError` if the logits of two networks differ by more than rounding."""
    images = np.random.default_rng(0).normal(size=(4, *image_shape)).astype(np.float32)

    def logits(network: Network) -> np.ndarray:
        module = network.module()
        with jax.default_matmul_precision("highest"):
            run = jax.jit(lambda variables, images: outputs_of(module, variables, images).logits)
            return np.asarray(run(network.variables, images))

    expected = logits(before)
    difference = np.abs(logits(after) - expected).max() / np.abs(expected).max()
    if not difference <= TOLERANCE:
        raise UserError(
            f"the compact network's logits differ from the network's by {difference:.1e} of the "
            f"largest, more than {TOLERANCE:g}: nothing was written; --recalibrate removes "
            "filters without computing the same"
        )


def training_batches(
    config: ConfigDict | None, network: Network, count: int
) -> Iterator[jax.Array]:
    """Images of a run's first training batches, as the network is shown them, one device's each.

    Raises:
      UserError: no config, or data that does not fit.
    """
    from kdjax.training.building import build
    from kdjax.training.step import step_batch

    if config is None:
        raise UserError(
            "--recalibrate needs training images, and an imported network has none: add --config"
        )
    config = ConfigDict(config.to_dict())
    config.update(method="cross_entropy", networks=(network.spec.name,), shared_stages=0)
    config.update(steps_per_dispatch=1, parallel="pmap")
    config.pruning, config.start = configs.base().pruning, configs.base().start
    config.ema = configs.base().ema
    program = build(config, normalization=network.spec.input.normalization)
    make = jax.jit(step_batch(program.prepare, config.seed, program.feed.places))
    constants = program.feed.constants("train")
    epochs = (program.feed.train(epoch, 0) for epoch in itertools.count())
    dispatches = itertools.chain.from_iterable(epochs)
    for step, (_, batches) in enumerate(itertools.islice(dispatches, count)):
        batch = jax.tree.map(lambda x: x[0, 0], batches)
        yield make(constants, batch, np.int32(step), np.int32(0))[0]["image"]
