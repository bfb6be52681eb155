"""Whether the projections of MCL runs have collapsed: cosines between different test images.

    python -m experiments.collapse runs/mcl_cifar100/mcl_seed0 runs/mcl_cifar100/mcl_seed1

Prints for every network of every workdir the mean and the least cosine between the projections of
the first 128 test images, and how many hidden units of the projection head are active on any of
them. A mean near 1 is a collapse: every image has the same projection, and the contrastive terms
have no gradient.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import kdjax
from kdjax import models
from kdjax.data import ArraySplit, Dataset, preprocessing
from kdjax.methods.mcl import ProjectionHead

IMAGES = 128


def networks(config, num_classes: int) -> models.Cohort:
    """The run's cohort without collectives."""
    built = tuple(models.create(name, num_classes=num_classes) for name in config.networks)
    return models.Cohort(built, shared_stages=config.shared_stages)


def first_images(dataset: Dataset) -> jax.Array:
    """The first test images, normalized, `[128, H, W, C]`."""
    if not isinstance(dataset.test, ArraySplit):
        raise SystemExit("only for sets that are held on the device")
    constants = {"image": dataset.test.images[:IMAGES], "label": dataset.test.labels[:IMAGES]}
    images, _ = preprocessing.test_input(dataset)(constants, {"index": np.arange(IMAGES)})
    return images


def report(workdir: Path) -> None:
    """One line per network."""
    run = kdjax.load_run(workdir)
    program, _, state = run.restore("latest")
    config, dataset = run.config, program.feed.dataset
    variables = {
        "params": state.params["cohort"],
        "batch_stats": state.model_state["batch_stats"],
    }
    outputs = networks(config, dataset.num_classes).apply(variables, first_images(dataset))
    for number, output in enumerate(outputs):
        head = state.params["heads"][f"head_{number}"]
        hidden = output.embedding @ head["hidden"]["kernel"] + head["hidden"]["bias"]
        vectors = ProjectionHead(head["output"]["bias"].shape[0]).apply(
            {"params": head}, output.embedding
        )
        cosines = (vectors @ vectors.T)[~jnp.eye(len(vectors), dtype=bool)]
        print(
            f"{workdir.name} network_{number}: cosine mean {cosines.mean():.4f} "
            f"least {cosines.min():.4f}; hidden units active {int((hidden > 0).any(0).sum())} "
            f"of {hidden.shape[1]}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdirs", type=Path, nargs="+")
    for workdir in parser.parse_args().workdirs:
        report(workdir)
