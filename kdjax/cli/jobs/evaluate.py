"""`--job=evaluate`: accuracies of a run's checkpoint, or of a network of its own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from absl.flags import FlagValues
from ml_collections import ConfigDict

from kdjax.cli.flags import CHECKPOINT, CONFIG, FORMAT, SPLIT, WORKDIR
from kdjax.cli.jobs.base import JOBS, Job, show_accuracies
from kdjax.errors import UserError
from kdjax.runs.console import say


def evaluate(values: FlagValues) -> None:
    """Evaluates a checkpoint of a run, or a network without a run, on a whole split.

    Raises:
      UserError: a network without a run is given no `--config`, or nothing can be evaluated.
    """
    from kdjax import networks
    from kdjax.networks import store
    from kdjax.training import evaluation

    if values.format not in (None, "text", "json"):
        raise UserError(f"--format={values.format}: --job=evaluate prints text or json")
    workdir = Path(values.workdir)
    if not store.is_run(workdir):
        network = networks.load(workdir)
        if values.config is None:
            raise UserError(
                f"{workdir} holds a network and no data: add --config, for instance "
                "--config configs/cross_entropy.py:cifar100"
            )
        metrics = evaluation.evaluate_network(values.config, network, split=values.split)
        if values.format == "json":
            _print_json(values, values.config, metrics)
        else:
            show_accuracies(metrics)
        return
    run = evaluation.load_run(workdir)
    if values.config is not None:  # the data or the devices may differ from those of training
        run = dataclasses.replace(run, config=values.config)
    metrics = evaluation.evaluate(run, split=values.split, checkpoint=values.checkpoint)
    if values.format == "json":
        _print_json(values, run.config, {"checkpoint": values.checkpoint} | metrics)
        return
    say(f"{values.checkpoint} checkpoint: step {metrics['step']}, epoch {metrics['epoch']}")
    show_accuracies(metrics)


def _print_json(values: FlagValues, config: ConfigDict, metrics: dict[str, Any]) -> None:
    """Prints metrics, and of what they are, as one JSON object."""
    source = {"workdir": values.workdir, "source": config.data.source, "split": values.split}
    say(json.dumps(source | metrics, indent=2))


JOBS.add(
    "evaluate",
    Job(
        evaluate,
        "Evaluate a run's checkpoint, or a network without a run, on a whole split. --config is "
        "for data that lies elsewhere than in training, and for networks without a run. "
        "--format=json prints all metrics as one object.",
        flags=(CONFIG, WORKDIR, CHECKPOINT, SPLIT, FORMAT),
        required=(WORKDIR,),
    ),
)
