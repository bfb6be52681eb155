"""`--job=train`: trains a run, resuming from the workdir's latest checkpoint."""

from __future__ import annotations

from pathlib import Path

from absl.flags import FlagValues

from kdjax.cli.flags import CONFIG, WORKDIR
from kdjax.cli.jobs.base import JOBS, Job, show_accuracies


def train(values: FlagValues) -> None:
    """Trains a run to its last epoch, and prints the accuracies."""
    from kdjax.training import stages

    show_accuracies(stages.train(values.config, Path(values.workdir)))


JOBS.add(
    "train",
    Job(
        train,
        "Train the run of --config, going on from the workdir's latest checkpoint.",
        flags=(CONFIG, WORKDIR),
        required=(WORKDIR, CONFIG),
    ),
)
