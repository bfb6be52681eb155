"""Networks and runs with random weights, written as training writes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from kdjax.methods import base
from kdjax.networks import InputSpec, Network, NetworkSpec
from kdjax.networks import metadata as descriptions
from kdjax.runs import saved_state
from tests.models.helpers import random_variables

IMAGES = InputSpec((8, 8))


def network(full_name: str, num_classes: int, images: InputSpec = IMAGES) -> Network:
    """A network with random weights."""
    spec = NetworkSpec.of(full_name, num_classes, images)
    return Network(spec, random_variables(spec.build(), np.zeros((1, *images.shape), np.float32)))


def run_metadata(state: dict, *specs: NetworkSpec, best: str = "mean/top1") -> dict:
    """What a run of a plain method keeps with a checkpoint of this state."""
    params, model_state = state["params"], state["model_state"]
    return descriptions.describe(specs, params, model_state, base.network_variables, best)


def metadata_file(directory: Path, step: int = 0) -> Path:
    """The file that holds a checkpoint's metadata."""
    return directory / "checkpoints" / str(step) / "metadata" / "metadata"


def change_metadata(directory: Path, change, step: int = 0) -> None:
    """Applies `change` to a checkpoint's metadata, in place."""
    file = metadata_file(directory, step)
    document = json.loads(file.read_text())
    change(document["metadata"])
    file.write_text(json.dumps(saved_state.sealed(document)))
