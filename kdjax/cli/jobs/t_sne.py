"""`--job=t-sne`: features of trained networks as points of a plane."""

from __future__ import annotations

from pathlib import Path

from absl.flags import FlagValues

from kdjax.cli.flags import CHECKPOINT, CONFIG, LAYERS, OUTPUT, SPLIT, WORKDIR, Flag
from kdjax.cli.jobs.base import JOBS, Job
from kdjax.runs.console import say

POINTS = Flag("points", "The most images, from all over the split.", 1000, int, at_least=10)


def t_sne(values: FlagValues) -> None:
    """Writes the points of every network and layer, as numbers and as a picture.

    Raises:
      UserError: matplotlib is missing, or a run or data cannot be read.
    """
    import numpy as np

    from kdjax.cli import frozen as shared
    from kdjax.cli import scatter_picture
    from kdjax.transfer import features

    scatter_picture.check_matplotlib()
    workdir = Path(values.workdir)
    frozen = shared.opened(workdir, values.config, values.checkpoint)
    labels = shared.labels(frozen, values.split)
    count = min(values.points, len(labels))
    chosen = np.linspace(0, len(labels) - 1, count).astype(np.int64)
    layers = values.layers or [features.EMBEDDING]
    planes = {
        f"{name} {layer}": scatter_picture.points(vectors[chosen], frozen.config.seed)
        for name, network in frozen.networks.items()
        for layer, vectors in shared.extract(frozen, network, values.split, layers).items()
    }
    results = {
        "source": frozen.config.data.source,
        "split": values.split,
        "images": chosen.tolist(),
        "labels": labels[chosen].tolist(),
        "points": {name: plane.tolist() for name, plane in planes.items()},
    }
    picture = scatter_picture.scatter(planes, labels[chosen], frozen.dataset.class_names)
    for file in shared.write(Path(values.output or workdir), "t_sne", results, picture):
        say(str(file))


JOBS.add(
    "t-sne",
    Job(
        t_sne,
        "Draw the features of images by every network of --workdir as points of a plane, colored "
        "by class (t-SNE): t_sne.json and t_sne.png in --output (default: --workdir). --config is "
        "for other data than that of the run.",
        flags=(WORKDIR, CONFIG, CHECKPOINT, LAYERS, SPLIT, POINTS, OUTPUT),
        required=(WORKDIR,),
    ),
)
