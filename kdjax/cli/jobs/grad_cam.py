"""`--job=grad-cam`: where in images networks find the classes that they predict."""

from __future__ import annotations

from pathlib import Path

from absl.flags import FlagValues

from kdjax.cli.flags import CHECKPOINT, CONFIG, OUTPUT, PICTURES, SPLIT, WORKDIR, Flag
from kdjax.cli.jobs.base import JOBS, Job
from kdjax.runs.console import say

STAGE = Flag("stage", "At the end of which stage, from 1; 0 is the last.", 0, int, at_least=0)


def grad_cam(values: FlagValues) -> None:
    """Writes grad_cam.png.

    Raises:
      UserError: a stage that there is not, or a run or data that cannot be read.
    """
    import jax

    from kdjax.cli import attention_picture, picture_sheet
    from kdjax.cli import frozen as shared

    frozen = shared.opened(Path(values.workdir), values.config, values.checkpoint)
    shown = attention_picture.rows(frozen, values.split, stage=values.stage, limit=values.pictures)
    columns = 1 + len(frozen.networks)
    columns *= max(1, picture_sheet.COLUMNS // columns)
    path = Path(values.output or values.workdir) / "grad_cam.png"
    if jax.process_index() == 0:
        picture_sheet.save(picture_sheet.sheet(shown.pictures, shown.captions, columns), path)
    say(str(path))


JOBS.add(
    "grad-cam",
    Job(
        grad_cam,
        "Draw images beside the pixels that speak for the class that every network of --workdir "
        "predicts (Grad-CAM): grad_cam.png in --output (default: --workdir). --config is for other "
        "data than that of the run.",
        flags=(WORKDIR, CONFIG, CHECKPOINT, SPLIT, STAGE, PICTURES, OUTPUT),
        required=(WORKDIR,),
    ),
)
