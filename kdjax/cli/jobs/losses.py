"""`--job=losses`: the tables of all losses."""

from __future__ import annotations

from absl.flags import FlagValues

from kdjax.cli.jobs.base import JOBS, Job
from kdjax.runs.console import say


def losses(values: FlagValues) -> None:
    """Prints the tables of the public losses."""
    del values
    from kdjax.losses import loss_table

    say(loss_table.markdown().rstrip())


JOBS.add("losses", Job(losses, "List all losses, with shapes, settings and sources.", flags=()))
