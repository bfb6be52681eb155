"""`--job=compact`: removes the zero filters of a trained network."""

from __future__ import annotations

from pathlib import Path

from absl.flags import FlagValues

from kdjax.cli.flags import CHECKPOINT, CONFIG, NETWORK_INDEX, OUTPUT, WORKDIR, Flag
from kdjax.cli.jobs.base import JOBS, Job

MULTIPLE = Flag(
    "multiple",
    "What numbers of filters are rounded up to multiples of, by zero filters.",
    1,
    int,
    at_least=1,
)
RECALIBRATE = Flag(
    "recalibrate",
    "Where not 0, BatchNorm is removed with the filters, as the papers do, and its statistics are "
    "estimated anew from so many training batches: outputs change.",
    0,
    int,
    at_least=0,
)


def compact(values: FlagValues) -> None:
    """Writes a network without its zero filters, and prints the savings."""
    from kdjax.cli import compacting

    compacting.compact(
        Path(values.workdir),
        Path(values.output),
        network_index=values.network_index,
        checkpoint=values.checkpoint,
        config=values.config,
        multiple=values.multiple,
        recalibrate=values.recalibrate,
    )


JOBS.add(
    "compact",
    Job(
        compact,
        "Write a network of --workdir without its zero filters to --output, and say what that "
        "saves.",
        flags=(WORKDIR, OUTPUT, CHECKPOINT, NETWORK_INDEX, CONFIG, MULTIPLE, RECALIBRATE),
        required=(WORKDIR, OUTPUT),
    ),
)
