"""`--job=train`: trains a run, resuming from the workdir's latest checkpoint."""

from __future__ import annotations

from pathlib import Path

from absl.flags import FlagValues

from kdjax.cli.flags import CONFIG, WORKDIR, Flag
from kdjax.cli.jobs.base import JOBS, Job, show_accuracies
from kdjax.runs.console import say

REPORT = Flag("report", "Write report.html at the end.", True, bool)


def train(values: FlagValues) -> None:
    """Trains a run to its last epoch, prints the accuracies, and writes the report."""
    import jax

    from kdjax.report import page
    from kdjax.training import stages

    workdir = Path(values.workdir)
    show_accuracies(stages.train(values.config, workdir))
    if values.report and jax.process_index() == 0:
        say(page.after_training(workdir))


JOBS.add(
    "train",
    Job(
        train,
        "Train the run of --config, going on from the workdir's latest checkpoint; then write "
        "report.html (--noreport: do not).",
        flags=(CONFIG, WORKDIR, REPORT),
        required=(WORKDIR, CONFIG),
    ),
)
