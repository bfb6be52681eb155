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

from kdjax import compaction
from kdjax import config as configs
from kdjax.cli.cost_table import cost_table
from kdjax.compaction.zero_filters import zero_filters
from kdjax.errors import UserError
from kdjax.models.outputs import outputs_of
from kdjax.networks import Network, load, store
from kdjax.runs import contents
from kdjax.runs import workdir as workdirs
from kdjax.runs.console import say
from kdjax.tree import leaves

TOLERANCE = 1e-5  # of logits, relative to the largest


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
    make = jax.jit(step_batch(program.prepare, places=program.feed.places))
    constants = program.feed.train_constants()
    epochs = (program.feed.train(epoch, 0) for epoch in itertools.count())
    dispatches = itertools.chain.from_iterable(epochs)
    for step, (_, batches) in enumerate(itertools.islice(dispatches, count)):
        batch = jax.tree.map(lambda x: x[0, 0], batches)
        yield make(constants, batch, np.int32(step), np.int32(0))[0]["image"]
