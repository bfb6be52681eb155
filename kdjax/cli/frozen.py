"""What the jobs about frozen networks share: networks, data, features and result files."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from kdjax import networks
from kdjax.data import Dataset, load
from kdjax.data.augment import AUGMENTATIONS
from kdjax.errors import UserError
from kdjax.networks import Network, store
from kdjax.runs import files
from kdjax.training import checks, evaluation
from kdjax.training.input_images import normalized
from kdjax.transfer import features


class Frozen(NamedTuple):
    """Trained networks, and the data that they are shown.

    Attributes:
      networks: by name.
      config: of the data.
      dataset: of the config, as it is normalized without the networks.
    """

    networks: dict[str, Network]
    config: ConfigDict
    dataset: Dataset


def networks_of(directory: Path, checkpoint: str) -> dict[str, Network]:
    """All networks of a run, by 'network_i', or the one that a directory holds.

    Raises:
      UserError: there is no network, or it cannot be read.
    """
    if store.is_run(directory):
        return evaluation.load_run(directory).load_networks(checkpoint)
    return {"network_0": networks.load(directory, checkpoint=checkpoint)}


def opened(workdir: Path, config: ConfigDict | None, checkpoint: str) -> Frozen:
    """The networks of a directory, and the data of `config`, or else of the run.

    Raises:
      UserError: networks or data cannot be read, there is neither a run nor a config, or the data
        have masks in place of classes.
    """
    trained = networks_of(workdir, checkpoint)
    if config is None and not store.is_run(workdir):
        raise UserError(
            f"{workdir} holds a network and no data: add --config, for instance "
            "--config configs/cross_entropy.py:cifar100"
        )
    config = config or evaluation.load_run(workdir).config
    checks.check(config)
    dataset = load(config)
    if dataset.has_masks or dataset.has_objects:
        targets = "masks" if dataset.has_masks else "objects"
        raise UserError(
            f"config.data.source={config.data.source}: its images have {targets} and no classes; "
            "name data with a class for every image"
        )
    return Frozen(trained, config, dataset)


def extract(
    frozen: Frozen, network: Network, split: str, layers: Sequence[str]
) -> dict[str, np.ndarray]:
    """`kdjax.transfer.features.extract`, of images as the network saw them in training.

    Raises:
      UserError: the network lacks a layer, or cannot be shown these images.
    """
    features.check_layers(layers, network, "--layers")
    config = frozen.config
    return features.extract(
        network,
        normalized(frozen.dataset, network.spec.input.normalization, config),
        split,
        layers=layers,
        batch_size=config.evaluation.batch_size,
        workers=config.data.workers,
        crop_fraction=AUGMENTATIONS[config.data.augmentation].evaluation_crop,
    )


def labels(frozen: Frozen, split: str) -> np.ndarray:
    """The classes `[N]` of a split."""
    return getattr(frozen.dataset, split).labels


def write(
    directory: Path, name: str, results: Mapping[str, Any], picture: Image.Image | None = None
) -> list[Path]:
    """Writes NAME.json and, with a picture, NAME.png to a directory, over those that are there.

    Process 0 does it for all.

    Returns:
      The files.

    Raises:
      UserError: they cannot be written.
    """
    contents: dict[str, str | bytes] = {f"{name}.json": json.dumps(results, indent=2) + "\n"}
    if picture is not None:
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        contents[f"{name}.png"] = buffer.getvalue()
    if jax.process_index() == 0:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise files.cannot_write(directory, error) from error
        for file, content in contents.items():
            files.write_atomically(directory / file, content)
    return [directory / file for file in contents]
