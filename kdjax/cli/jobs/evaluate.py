"""`--job=evaluate`: accuracies of a run's checkpoint, or of a network of its own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from absl.flags import FlagValues

from kdjax.cli.flags import CHECKPOINT, CONFIG, SPLIT, WORKDIR
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

    workdir = Path(values.workdir)
    if not store.is_run(workdir):
        network = networks.load(workdir)
        if values.config is None:
            raise UserError(
                f"{workdir} holds a network and no data: add --config, for instance "
                "--config configs/cross_entropy.py:cifar100"
            )
        show_accuracies(evaluation.evaluate_network(values.config, network, split=values.split))
        return
    run = evaluation.load_run(workdir)
    if values.config is not None:  # the data or the devices may differ from those of training
        run = dataclasses.replace(run, config=values.config)
    metrics = evaluation.evaluate(run, split=values.split, checkpoint=values.checkpoint)
    say(f"{values.checkpoint} checkpoint: step {metrics['step']}, epoch {metrics['epoch']}")
    show_accuracies(metrics)


JOBS.add(
    "evaluate",
    Job(
        evaluate,
        "Evaluate a run's checkpoint, or a network without a run, on a whole split. --config is "
        "for data that lies elsewhere than in training, and for networks without a run.",
        flags=(CONFIG, WORKDIR, CHECKPOINT, SPLIT),
        required=(WORKDIR,),
    ),
)
