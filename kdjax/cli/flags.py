"""The command line's flags."""

import os

from absl import flags

from kdjax.cli.jobs import JOBS

_JOB_HELP = (
    "train: train, going on from the workdir's latest checkpoint. evaluate: evaluate a run's "
    "checkpoint or an imported network on the whole test split. show-batch: draw what the "
    "networks of --config are shown at --step, augmented and mixed, with labels, as batch.png in "
    "--workdir, over the one that is there; nothing is trained. networks: list all networks. "
    "import-torch: write --torch_file as a checkpoint of --network to --workdir, to evaluate it "
    "or to teach. export-torch: write a trained network of --workdir to --torch_file. compact: "
    "write a network of --workdir without its zero filters to --output, and say what that saves. "
    "export: write a trained network of --workdir for deployment, each file read again and "
    "compared."
)


def define(values: flags.FlagValues, argv: list[str]) -> None:
    """Adds the command line's flags to `values`; `argv` says which settings are overridden."""
    from ml_collections import config_flags

    config_flags.DEFINE_config_file(
        "config",
        None,
        "A file of configs/, FILE.py or FILE.py:ARGUMENTS; --config.KEY=VALUE changes a setting.",
        flag_values=values,
        sys_argv=argv,
    )
    flags.DEFINE_string("workdir", None, "Directory of the run.", flag_values=values)
    flags.DEFINE_enum("job", "train", list(JOBS), _JOB_HELP, flag_values=values)
    flags.DEFINE_enum(
        "checkpoint", "best", ["best", "latest"], "Which one of a run.", flag_values=values
    )
    flags.DEFINE_integer(
        "step", 0, "Which one --job=show-batch draws, from 0.", lower_bound=0, flag_values=values
    )
    flags.DEFINE_integer(
        "pictures", 72, "The most that --job=show-batch draws.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_string("network", None, "Network of --job=import-torch.", flag_values=values)
    flags.DEFINE_string(
        "torch_file",
        None,
        "PyTorch checkpoint: .pth, .pth.tar or .safetensors.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "torch_part",
        "",
        "Import, or export, only the arrays under this name: 'backbone' for the network inside one "
        "with auxiliary classifiers.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "mean",
        "",
        "Of --job=import-torch and export: the mean of pixels in [0, 1] in a network's training, a "
        "number per channel; or imagenet, cifar10, cifar100, half or none, for mean and std both.",
        flag_values=values,
    )
    flags.DEFINE_string("std", "", "The standard deviation, as --mean.", flag_values=values)
    flags.DEFINE_integer(
        "network_index",
        0,
        "Which network of a run to compact or export, from 0.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_string(
        "output",
        None,
        "Directory that --job=compact makes, or that --job=export writes to; the latter's default "
        "is WORKDIR/export.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "formats",
        ["stablehlo", "onnx", "torch"],
        "What --job=export writes. stablehlo, onnx: any number of images to logits. torch: a state "
        "dict.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "export_input",
        "pixels",
        ["pixels", "normalized"],
        "What the functions of --job=export take: pixels in [0, 1], which they normalize, or "
        "images that are normalized already.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "image_size",
        0,
        "Side of the images of --job=export; 0: as in the run's data, or what an imported network "
        "was made for.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "multiple",
        1,
        "What --job=compact rounds numbers of filters up to multiples of, by zero filters.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "recalibrate",
        0,
        "Where not 0, --job=compact removes BatchNorm with the filters, as the papers do, and "
        "estimates its statistics anew from so many training batches: outputs change.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_bool(
        "distributed",
        "JAX_COORDINATOR_ADDRESS" in os.environ,
        "Join the other processes before anything else: needed on pods. On by default where "
        "JAX_COORDINATOR_ADDRESS is set.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "coordinator", None, "HOST:PORT of process 0, where it is not found.", flag_values=values
    )
    flags.DEFINE_integer(
        "num_processes",
        _environment_number("JAX_NUM_PROCESSES"),
        "How many, where it is not found.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "process_id",
        _environment_number("JAX_PROCESS_ID"),
        "This one's number, where it is not found.",
        flag_values=values,
    )
    flags.DEFINE_bool("debug", False, "Show tracebacks of errors.", flag_values=values)
    flags.DEFINE_bool("help", False, "Show this.", flag_values=values)


def _environment_number(name: str) -> int | None:
    return int(os.environ[name]) if name in os.environ else None
