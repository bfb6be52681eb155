"""`--job=show-batch`: a picture of what a run's networks are shown at a step."""

from __future__ import annotations

from pathlib import Path

from absl.flags import FlagValues

from kdjax.cli.flags import CONFIG, PICTURES, WORKDIR, Flag
from kdjax.cli.jobs.base import JOBS, Job
from kdjax.runs.console import say

STEP = Flag("step", "Of which step, from 0.", 0, int, at_least=0)


def show_batch(values: FlagValues) -> None:
    """Writes a picture of what a run's networks are shown at a step."""
    from kdjax.cli import batch_picture

    path, rows = batch_picture.write_batch(
        values.config, Path(values.workdir), step=values.step, limit=values.pictures
    )
    say(f"step {values.step}: {len(rows.captions)} of {rows.total} pictures: {path}")


JOBS.add(
    "show-batch",
    Job(
        show_batch,
        "Draw what the networks of --config are shown at --step, augmented and mixed, with labels, "
        "as batch.png in --workdir, over the one that is there; nothing is trained.",
        flags=(CONFIG, WORKDIR, STEP, PICTURES),
        required=(WORKDIR, CONFIG),
    ),
)
