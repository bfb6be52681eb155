"""`--job=cka`: how similar the features of trained networks are."""

from __future__ import annotations

from pathlib import Path

from absl.flags import FlagValues

from kdjax.cli.flags import CHECKPOINT, CONFIG, LAYERS, OUTPUT, SPLIT, WORKDIR, Flag
from kdjax.cli.jobs.base import JOBS, Job
from kdjax.runs.console import say

OTHERS = Flag(
    "others", "Further directories of runs or networks to compare, separated by commas.", (), list
)
UNBIASED = Flag(
    "unbiased", "The unbiased estimate of HSIC, for few images and many features.", False, bool
)


def cka(values: FlagValues) -> None:
    """Writes the CKA of all pairs of networks and layers, as numbers and as a picture."""
    from kdjax.cli import frozen as shared
    from kdjax.cli.heat_map import heat_map
    from kdjax.transfer import features
    from kdjax.transfer.cka import cka_matrix

    workdir = Path(values.workdir)
    frozen = shared.opened(workdir, values.config, values.checkpoint)
    members = dict(frozen.networks)
    if values.others:
        members = {f"{workdir.name}/{name}": network for name, network in members.items()}
    for other in map(Path, values.others):
        for name, network in shared.networks_of(other, values.checkpoint).items():
            members[f"{other}/{name}"] = network
    representations = {}
    for name, network in members.items():
        layers = values.layers or features.layers_of(network)
        for layer, vectors in shared.extract(frozen, network, values.split, layers).items():
            representations[f"{name}/{layer}"] = vectors
    matrix = cka_matrix([*representations.values()], unbiased=values.unbiased)
    results = {
        "source": frozen.config.data.source,
        "split": values.split,
        "images": len(shared.labels(frozen, values.split)),
        "unbiased": values.unbiased,
        "features": [*representations],
        "cka": [[float(value) for value in row] for row in matrix],
    }
    picture = heat_map(matrix, [*representations])
    for file in shared.write(Path(values.output or workdir), "cka", results, picture):
        say(str(file))


JOBS.add(
    "cka",
    Job(
        cka,
        "Compare the features of all networks of --workdir, and of --others, by linear centered "
        "kernel alignment: cka.json and cka.png in --output (default: --workdir). --config is for "
        "other data than that of the run.",
        flags=(WORKDIR, CONFIG, CHECKPOINT, LAYERS, SPLIT, OTHERS, UNBIASED, OUTPUT),
        required=(WORKDIR,),
    ),
)
