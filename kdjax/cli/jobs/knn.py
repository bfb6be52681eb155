"""`--job=knn`: accuracy of weighted nearest neighbors on frozen features."""

from __future__ import annotations

from pathlib import Path

from absl.flags import FlagValues

from kdjax.cli.flags import CHECKPOINT, CONFIG, LAYERS, OUTPUT, PICTURES, WORKDIR, Flag
from kdjax.cli.jobs.base import JOBS, Job
from kdjax.errors import UserError
from kdjax.runs.console import say

NEIGHBORS = Flag("neighbors", "How many training images vote.", 200, int, at_least=1)
TEMPERATURE = Flag(
    "temperature", "Of the votes, exp(cosine similarity / temperature).", 0.07, float
)


def knn(values: FlagValues) -> None:
    """Classifies the test images by their nearest neighbors among the training images.

    Raises:
      UserError: a flag out of range, or a run or data that cannot be read.
    """
    from kdjax.cli import frozen as shared
    from kdjax.cli import neighbor_picture
    from kdjax.transfer import features
    from kdjax.transfer.knn import check_neighbors, knn_accuracy

    if not values.temperature > 0:
        raise UserError(f"--temperature={values.temperature}: must be positive")
    workdir = Path(values.workdir)
    frozen = shared.opened(workdir, values.config, values.checkpoint)
    bank_labels, query_labels = (shared.labels(frozen, split) for split in ("train", "test"))
    check_neighbors(values.neighbors, len(bank_labels), "--neighbors")
    layers = values.layers or [features.EMBEDDING]
    accuracies: dict[str, dict[str, float]] = {}
    picture = None
    for name, network in frozen.networks.items():
        bank = shared.extract(frozen, network, "train", layers)
        queries = shared.extract(frozen, network, "test", layers)
        if picture is None:  # of the first network and layer
            vectors = queries[layers[0]], bank[layers[0]]
            picture = neighbor_picture.neighbors(frozen.dataset, *vectors, values.pictures)
        accuracies[name] = {}
        for layer in layers:
            accuracy = knn_accuracy(
                queries[layer],
                query_labels,
                bank[layer],
                bank_labels,
                num_classes=frozen.dataset.num_classes,
                k=values.neighbors,
                temperature=values.temperature,
            )
            accuracies[name][layer] = float(accuracy)
            say(f"{name}  {layer}  k-NN top-1 {100 * float(accuracy):6.2f} %")
    results = {
        "source": frozen.config.data.source,
        "neighbors": values.neighbors,
        "temperature": values.temperature,
        "top1": accuracies,
    }
    for file in shared.write(Path(values.output or workdir), "knn", results, picture):
        say(str(file))


JOBS.add(
    "knn",
    Job(
        knn,
        "Classify the test images by weighted nearest neighbors among the training images, on "
        "frozen features of every network of --workdir. Accuracies go to knn.json in --output "
        "(default: --workdir), the neighbors of some images, by the first network and layer, to "
        "knn.png. --config is for other data than that of the run.",
        flags=(
            *(WORKDIR, CONFIG, CHECKPOINT, LAYERS),
            *(NEIGHBORS, TEMPERATURE, PICTURES, OUTPUT),
        ),
        required=(WORKDIR,),
    ),
)
