"""`--job=methods`: the table of all methods."""

from __future__ import annotations

from absl.flags import FlagValues

from kdjax.cli.flags import CONFIG
from kdjax.cli.jobs.base import JOBS, Job
from kdjax.runs.console import say


def methods(values: FlagValues) -> None:
    """Prints the table of all methods, including those that --config registers."""
    del values
    from kdjax.methods import method_table as table

    say(table.markdown().rstrip())


JOBS.add(
    "methods",
    Job(methods, "List all methods, with settings, needs and sources.", flags=(CONFIG,)),
)
