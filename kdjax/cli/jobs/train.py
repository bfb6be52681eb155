"""`--job=train`: trains a run, resuming from the workdir's latest checkpoint."""

from __future__ import annotations

import gc
from pathlib import Path

from absl.flags import FlagValues

from kdjax.cli.flags import CONFIG, WORKDIR, Flag
from kdjax.cli.jobs.base import JOBS, Job, show_accuracies
from kdjax.errors import UserError
from kdjax.runs.console import say

REPORT = Flag("report", "Write report.html at the end.", True, bool)
PROFILE = Flag("profile", "Write a trace of some steps to WORKDIR/profile.", False, bool)
PROFILE_STEPS = Flag("profile_steps", "How many steps --profile traces.", 10, int, at_least=1)


def train(values: FlagValues) -> None:
    """Trains a run to its last epoch, prints the accuracies, and writes the report.

    Raises:
      UserError: `--profile_steps` without `--profile`, or as `stages.train`.
    """
    if values["profile_steps"].present and not values.profile:
        raise UserError("--profile_steps has no effect without --profile; add it")

    import jax

    from kdjax.report import page
    from kdjax.training import stages

    gc.freeze()  # what is imported stays: collections while functions are traced need not visit it
    workdir = Path(values.workdir)
    steps = values.profile_steps if values.profile else 0
    show_accuracies(stages.train(values.config, workdir, profile_steps=steps))
    if values.report and jax.process_index() == 0:
        say(page.after_training(workdir))


JOBS.add(
    "train",
    Job(
        train,
        "Train the run of --config, going on from the workdir's latest checkpoint; then write "
        "report.html (--noreport: do not).",
        flags=(CONFIG, WORKDIR, REPORT, PROFILE, PROFILE_STEPS),
        required=(WORKDIR, CONFIG),
    ),
)
