"""`--job=networks`: the table of all networks."""

from __future__ import annotations

from absl.flags import FlagValues

from kdjax.cli.flags import CONFIG
from kdjax.cli.jobs.base import JOBS, Job
from kdjax.runs.console import say


def networks(values: FlagValues) -> None:
    """Prints the table of all networks."""
    del values
    from kdjax.interop.names.constructors import CONSTRUCTORS
    from kdjax.models import network_table as table

    say(table.markdown(CONSTRUCTORS).rstrip())


JOBS.add(
    "networks", Job(networks, "List all networks, with parameters and FLOPs.", flags=(CONFIG,))
)
