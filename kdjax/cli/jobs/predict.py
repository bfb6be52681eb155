"""`--job=predict`: the classes of a user's images, with probabilities."""

from __future__ import annotations

from pathlib import Path

from absl.flags import FlagValues

from kdjax.cli.flags import CHECKPOINT, CONFIG, FORMAT, OUTPUT, WORKDIR, Flag
from kdjax.cli.jobs.base import JOBS, Job
from kdjax.errors import UserError
from kdjax.runs.console import say

IMAGES = Flag(
    "images",
    "A folder, with its subfolders; an image file; or FILE.npz with images, uint8 [N, H, W, C].",
)
MEMBERS = Flag(
    "members",
    "Numbers of the networks whose mean logits predict, separated by commas. Default: all, the "
    "ensemble.",
    (),
    list,
)


def predict(values: FlagValues) -> None:
    """Writes the predicted classes of images to predictions.csv or predictions.json.

    Raises:
      UserError: a flag that cannot be used, images or networks that cannot be read, or a file that
        cannot be written.
    """
    from kdjax.cli import predicting

    kind = values.format or "csv"
    if kind == "text":
        raise UserError("--format=text: --job=predict writes csv or json")
    workdir = Path(values.workdir)
    predictor = predicting.opened(workdir, values.config, values.checkpoint, values.members)
    path, count = predicting.write(
        predictor, Path(values.images), Path(values.output or workdir), kind
    )
    say(f"{' + '.join(predictor.names)}: {count} images: {path}")


JOBS.add(
    "predict",
    Job(
        predict,
        "Write the classes that networks of --workdir predict for --images, with the probabilities "
        "of all classes, as predictions.csv or with --format=json predictions.json to --output "
        "(default: --workdir). Images are resized and cropped as in the evaluation of the run. "
        "The data of training are not needed. --config is for networks without a run: its data "
        "give the names of the classes, which are numbers otherwise.",
        flags=(WORKDIR, IMAGES, MEMBERS, CHECKPOINT, FORMAT, OUTPUT, CONFIG),
        required=(WORKDIR, IMAGES),
    ),
)
