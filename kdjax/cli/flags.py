"""Flags of the command line, declared where they are used, and those of several jobs."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from absl import flags


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag.

    Attributes:
      name: without dashes.
      help: what it means.
      default: its value where it is not given.
      kind: `str`, `int`, `float`, `bool`, or `list` for strings separated by commas.
      choices: of strings, those allowed; () for any.
      at_least: of integers, the least.
      hint: what to say, besides its name, where a job that requires it was not given it.
    """

    name: str
    help: str
    default: Any = None
    kind: type = str
    choices: tuple[str, ...] = ()
    at_least: int | None = None
    hint: str = ""

    def define(self, values: flags.FlagValues) -> None:
        """Adds the flag to `values`."""
        options: dict[str, Any] = {"flag_values": values}
        if self.choices:
            flags.DEFINE_enum(self.name, self.default, list(self.choices), self.help, **options)
        elif self.kind is int:
            options["lower_bound"] = self.at_least
            flags.DEFINE_integer(self.name, self.default, self.help, **options)
        elif self.kind is float:
            flags.DEFINE_float(self.name, self.default, self.help, **options)
        elif self.kind is bool:
            flags.DEFINE_bool(self.name, self.default, self.help, **options)
        elif self.kind is list:
            flags.DEFINE_list(self.name, list(self.default), self.help, **options)
        else:
            flags.DEFINE_string(self.name, self.default, self.help, **options)


# `cli.command_line` defines it: `--config.KEY=VALUE` comes with it.
CONFIG = Flag(
    "config",
    "An installed config, NAME or NAME:ARGUMENTS, or a file, FILE.py or FILE.py:ARGUMENTS; "
    "--config.KEY=VALUE changes a setting. What the file registers is known to the job.",
    hint="for instance --config mcl:digits",
)
WORKDIR = Flag("workdir", "Directory of the run.", hint="name a directory for the run")
CHECKPOINT = Flag(
    "checkpoint", "Which checkpoint of a run.", default="best", choices=("best", "latest")
)
EMA = Flag("ema", "The moving average of the weights, of a run with config.ema.", False, bool)
NETWORK_INDEX = Flag("network_index", "Which network of a run, from 0.", 0, int, at_least=0)
TORCH_FILE = Flag(
    "torch_file",
    "PyTorch checkpoint: .pth, .pth.tar or .safetensors; to import, also a folder of a timm model.",
)
TORCH_PART = Flag(
    "torch_part",
    "Only the arrays under this name: 'backbone' for the network inside one with auxiliary "
    "classifiers.",
    default="",
)
MEAN = Flag(
    "mean",
    "The mean of pixels in [0, 1] in the network's training, a number per channel; or imagenet, "
    "cifar10, cifar100, half or none, for mean and std both.",
    default="",
)
STD = Flag("std", "The standard deviation, as --mean.", default="")
SPLIT = Flag(
    "split",
    "Which images of a run: 'train' are those that it learned from, without augmentation.",
    default="test",
    choices=("test", "train"),
)
LAYERS = Flag(
    "layers",
    "Features, separated by commas: embedding, the penultimate vector, or stage1, stage2, ..., "
    "averaged over their pixels. Default: embedding; all of them where they are compared by CKA.",
    (),
    list,
)
PICTURES = Flag("pictures", "The most that are drawn.", 72, int, at_least=1)
OUTPUT = Flag("output", "Directory that is written to.")
FORMAT = Flag(
    "format", "Of results: text, json, or csv for predictions.", choices=("text", "json", "csv")
)

# Of every job.
COMMON = (
    Flag("job", "What to do: see below.", default="train"),
    Flag(
        "distributed",
        "Join the other processes before anything else: needed on pods. On by default where "
        "JAX_COORDINATOR_ADDRESS is set.",
        "JAX_COORDINATOR_ADDRESS" in os.environ,
        bool,
    ),
    Flag("coordinator", "HOST:PORT of process 0, where it is not found."),
    Flag(
        "num_processes",
        "How many, where it is not found.",
        os.environ.get("JAX_NUM_PROCESSES"),
        int,
    ),
    Flag(
        "process_id",
        "This one's number, where it is not found.",
        os.environ.get("JAX_PROCESS_ID"),
        int,
    ),
    Flag(
        "compile_cache",
        "Keep compiled programs in the user's cache folder, so that the next start of a config is "
        "fast; JAX_COMPILATION_CACHE_DIR names another folder.",
        True,
        bool,
    ),
    Flag("debug", "Show tracebacks of errors.", False, bool),
    Flag("version", "Show the version.", False, bool),
    Flag("help", "Show this, and with --config its settings.", False, bool),
)
