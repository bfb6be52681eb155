"""`--job=report`: one HTML page about runs."""

from __future__ import annotations

from pathlib import Path

from absl.flags import FlagValues

from kdjax.cli.flags import CONFIG, OUTPUT, WORKDIR, Flag
from kdjax.cli.jobs.base import JOBS, Job
from kdjax.runs.console import say

RUNS = Flag(
    "runs",
    "Workdirs of further runs, or folders of sweeps, side by side with --workdir; by commas.",
    (),
    list,
)


def report(values: FlagValues) -> None:
    """Writes report.html, after a batch and a confusion matrix of every run."""
    from kdjax.cli import reporting
    from kdjax.report import contents, page

    named = (Path(values.workdir), *map(Path, values.runs))
    workdirs = [workdir for directory in named for workdir in contents.workdirs_of(directory)]
    for workdir in workdirs:
        reporting.prepare(workdir, values.config)
    say(str(page.write(workdirs, Path(values.output or values.workdir))))


JOBS.add(
    "report",
    Job(
        report,
        "Write report.html to --output (default: --workdir), a page without other files: curves, "
        "the best and the last epoch, a batch, the confusion matrix, config and versions of the "
        "run in --workdir. With --runs, or of the folder of a sweep, several runs are compared: "
        "their results, means and spreads over seeds, curves in the same panels. --config is for "
        "data that lies elsewhere than in training.",
        flags=(WORKDIR, RUNS, OUTPUT, CONFIG),
        required=(WORKDIR,),
    ),
)
