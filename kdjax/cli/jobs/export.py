"""`--job=export`: writes a trained network to files for deployment or for PyTorch."""

from __future__ import annotations

from pathlib import Path

from absl.flags import FlagValues

from kdjax.cli.flags import (
    CHECKPOINT,
    CONFIG,
    EMA,
    MEAN,
    NETWORK_INDEX,
    OUTPUT,
    STD,
    TORCH_FILE,
    TORCH_PART,
    WORKDIR,
    Flag,
)
from kdjax.cli.jobs.base import JOBS, Job
from kdjax.errors import UserError
from kdjax.runs.console import say

FORMATS = Flag(
    "formats",
    "What is written. stablehlo, onnx: any number of images to logits. torch: a state dict.",
    ("stablehlo", "onnx", "torch"),
    list,
)
EXPORT_INPUT = Flag(
    "export_input",
    "What the functions take: pixels in [0, 1], which they normalize, or images that are "
    "normalized already.",
    default="pixels",
    choices=("pixels", "normalized"),
)
IMAGE_SIZE = Flag(
    "image_size",
    "Side of the images; 0: as in the run's data, or what an imported network was made for.",
    0,
    int,
    at_least=0,
)
# The flags of the formats that hold functions; `--torch_file` does not take them.
_FUNCTION_FLAGS = (OUTPUT, EXPORT_INPUT, IMAGE_SIZE, MEAN, STD)


def export(values: FlagValues) -> None:
    """Writes a trained network for deployment and verifies the written files.

    Raises:
      UserError: flags that exclude each other, a network that cannot be exported, or a file that
        exists or cannot be written.
    """
    if values.torch_file is not None:
        _state_dict(values)
    elif values.torch_part:
        raise UserError("--torch_part is of --torch_file; other files have no branches anyway")
    else:
        _functions(values)


def _functions(values: FlagValues) -> None:
    from kdjax import networks
    from kdjax.interop import deployed
    from kdjax.interop import export as interop
    from kdjax.networks import normalization

    workdir, name = Path(values.workdir), f"network_{values.network_index}"
    directory = Path(values.output or workdir / "export")
    interop.files(directory, name, values.formats)
    network = networks.load(
        workdir, values.network_index, values.checkpoint, ema=values.ema
    ).backbone
    images = deployed.images_of(
        network,
        normalization.from_flags(values.mean, values.std),
        image_size=values.image_size,
        pixels=values.export_input == "pixels",
    )
    say(f"{network.spec.name}, {network.spec.num_classes} classes; images: {images}")
    for line in interop.write(network, images, directory, name, values.formats):
        say(line)


def _state_dict(values: FlagValues) -> None:
    """Writes the whole network, with its branches, to one file."""
    from kdjax import networks
    from kdjax.interop import export as interop

    if values["formats"].present and values.formats != ["torch"]:
        raise UserError(
            f"--formats={','.join(values.formats)}: --torch_file is a file of --formats=torch alone"
        )
    for flag in _FUNCTION_FLAGS:
        if values[flag.name].present:
            raise UserError(f"--{flag.name} has no effect on --torch_file; leave one of them out")
    file = Path(values.torch_file)
    if file.exists():
        raise UserError(f"--torch_file={file} exists; name another file")
    network = networks.load(values.workdir, values.network_index, values.checkpoint, ema=values.ema)
    if values.torch_part not in ("", "backbone"):
        raise UserError(f"--torch_part={values.torch_part}: of a network to export, use 'backbone'")
    if values.torch_part:
        network = network.backbone
    arrays = interop.write_state_dict(file, network)
    say(f"{network.spec.full_name}, {network.spec.num_classes} classes, {arrays} arrays: {file}")


JOBS.add(
    "export",
    Job(
        export,
        "Write a trained network of --workdir, without its branches, for deployment, to --output "
        "(default: WORKDIR/export), each file read again and compared. Or, with --formats=torch "
        "--torch_file=FILE, the state dict of the whole network to FILE.",
        flags=(
            *(WORKDIR, CONFIG, CHECKPOINT, NETWORK_INDEX, EMA, FORMATS, TORCH_FILE, TORCH_PART),
            *_FUNCTION_FLAGS,
        ),
        required=(WORKDIR,),
    ),
)
