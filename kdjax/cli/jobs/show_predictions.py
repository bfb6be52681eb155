"""`--job=show-predictions`: a picture of a run's predictions on test images."""

from __future__ import annotations

from pathlib import Path

from absl.flags import FlagValues

from kdjax.cli.flags import CHECKPOINT, CONFIG, NETWORK_INDEX, PICTURES, SPLIT, WORKDIR
from kdjax.cli.jobs.base import JOBS, Job
from kdjax.runs.console import say


def show_predictions(values: FlagValues) -> None:
    """Writes a picture of predictions of a run's network."""
    from kdjax.cli import prediction_picture

    path, count = prediction_picture.write_predictions(
        Path(values.workdir),
        config=values.config,
        network=values.network_index,
        checkpoint=values.checkpoint,
        split=values.split,
        limit=values.pictures,
    )
    say(f"network_{values.network_index}: {count} pictures: {path}")


JOBS.add(
    "show-predictions",
    Job(
        show_predictions,
        "Draw what a network of the run in --workdir predicts, for methods of masks or boxes, as "
        "predictions.png in --workdir, over the one that is there. --config is for data that lies "
        "elsewhere than in training.",
        flags=(CONFIG, WORKDIR, CHECKPOINT, NETWORK_INDEX, SPLIT, PICTURES),
        required=(WORKDIR,),
    ),
)
