"""The jobs of the command line, each a function of the parsed flags."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from absl import flags

from kdjax.errors import UserError
from kdjax.runs.console import say


def train(values: flags.FlagValues) -> None:
    """Trains, going on from the workdir's latest checkpoint."""
    from kdjax.training import stages

    _show(stages.train(values.config, Path(values.workdir)))


def evaluate(values: flags.FlagValues) -> None:
    """Evaluates a checkpoint of a run, or an imported network, on the whole test split."""
    from kdjax import networks
    from kdjax.networks import store
    from kdjax.training import evaluation

    workdir = Path(values.workdir)
    if not store.is_run(workdir):
        network = networks.load(workdir)
        if values.config is None:
            raise UserError(
                f"{workdir} holds a network and no data: add --config, for instance "
                "--config configs/cross_entropy.py:cifar100"
            )
        _show(evaluation.evaluate_network(values.config, network))
        return
    run = evaluation.load_run(workdir)
    if values.config is not None:  # data may have moved, devices may be others
        run = dataclasses.replace(run, config=values.config)
    metrics = evaluation.evaluate(run, checkpoint=values.checkpoint)
    say(f"{values.checkpoint} checkpoint: step {metrics['step']}, epoch {metrics['epoch']}")
    _show(metrics)


def _show(metrics: dict[str, float]) -> None:
    names = [key.removesuffix("/top1") for key in metrics if key.endswith("/top1")]
    width = max(map(len, names)) + 2
    for name in names:
        top5 = metrics.get(f"{name}/top5")
        more = "" if top5 is None else f"  top-5 {100 * top5:6.2f} %"
        say(f"{name:<{width}}top-1 {100 * metrics[f'{name}/top1']:6.2f} %{more}")


def show_batch(values: flags.FlagValues) -> None:
    """Writes a picture of what a run's networks are shown at a step."""
    from kdjax.cli import show_batch as show

    path, rows = show.write_batch(
        values.config, Path(values.workdir), step=values.step, most=values.pictures
    )
    say(f"step {values.step}: {len(rows.captions)} of {rows.total} pictures: {path}")


def networks(values: flags.FlagValues) -> None:
    """Prints the table of all networks."""
    del values
    from kdjax.interop.names.constructors import CONSTRUCTORS
    from kdjax.models import table

    say(table.markdown(CONSTRUCTORS).rstrip())


def import_torch(values: flags.FlagValues) -> None:
    """Writes a PyTorch checkpoint as one of kdjax."""
    from kdjax import models
    from kdjax.interop import torch as interop
    from kdjax.networks import InputSpec, Network, NetworkSpec, normalization, store

    directory, file = Path(values.workdir), Path(_required(values, "torch_file"))
    name = _required(values, "network")
    store.check_free(directory)
    statistics = normalization.from_flags(values.mean, values.std)
    state = interop.select(interop.read(file), values.torch_part)
    module = models.create(name, num_classes=1)
    num_classes = interop.count_classes(module, state)
    side = models.create(models.parse(name).network, num_classes=1).image_size
    channels = 3 if statistics is None else len(statistics.mean)
    spec = NetworkSpec.of(name, num_classes, InputSpec((side, side), channels, statistics))
    variables, report = interop.import_state_dict(spec.build(), state, image_shape=spec.input.shape)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    source = {"file": file.name, "sha256": digest, "names": report.dialect}
    store.save(directory, Network(spec, variables), source)
    say(str(report))
    say(f"{name}, {num_classes} classes: {directory}")
    if statistics is None:
        say(
            "what its images were normalized with is not known: as a teacher it will see them as "
            "its student does; --mean and --std say it, such as --mean=imagenet"
        )


def export_torch(values: flags.FlagValues) -> None:
    """Writes a trained network's state dict for PyTorch."""
    from kdjax import networks
    from kdjax.interop import export as interop

    file = Path(_required(values, "torch_file"))
    if file.exists():
        raise UserError(f"--torch_file={file} exists; name another file")
    network = networks.load(values.workdir, values.network_index, values.checkpoint)
    if values.torch_part not in ("", "backbone"):
        raise UserError(f"--torch_part={values.torch_part}: of a network to export, use 'backbone'")
    if values.torch_part:
        network = network.backbone
    arrays = interop.write_state_dict(file, network)
    say(f"{network.spec.full_name}, {network.spec.num_classes} classes, {arrays} arrays: {file}")


def export(values: flags.FlagValues) -> None:
    """Writes a trained network, without its branches, for deployment, and checks what it wrote."""
    from kdjax import networks
    from kdjax.interop import deployed
    from kdjax.interop import export as interop
    from kdjax.networks import normalization

    workdir, name = Path(values.workdir), f"network_{values.network_index}"
    directory = Path(values.output or workdir / "export")
    interop.files(directory, name, values.formats)
    network = networks.load(workdir, values.network_index, values.checkpoint).backbone
    images = deployed.images_of(
        network,
        normalization.from_flags(values.mean, values.std),
        image_size=values.image_size,
        pixels=values.export_input == "pixels",
    )
    say(f"{network.spec.name}, {network.spec.num_classes} classes; images: {images}")
    for line in interop.write(network, images, directory, name, values.formats):
        say(line)


def compact(values: flags.FlagValues) -> None:
    """Writes a network without its zero filters, and says what that saves."""
    from kdjax.cli import compact as compacting

    compacting.compact(
        Path(values.workdir),
        Path(_required(values, "output")),
        network_index=values.network_index,
        checkpoint=values.checkpoint,
        config=values.config,
        multiple=values.multiple,
        recalibrate=values.recalibrate,
    )


def _required(values: flags.FlagValues, name: str) -> str:
    if not values[name].value:
        raise UserError(f"--job={values.job} needs --{name}")
    return values[name].value


JOBS = {
    "train": train,
    "evaluate": evaluate,
    "show-batch": show_batch,
    "networks": networks,
    "import-torch": import_torch,
    "export-torch": export_torch,
    "export": export,
    "compact": compact,
}
