"""Folders of timm's models, as the Hugging Face hub has them: config.json and model.safetensors."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

from kdjax.errors import UserError
from kdjax.networks import Network, normalization

# timm's architectures whose modules are those of kdjax's networks.
ARCHITECTURES = {
    "resnet18": "resnet18",
    "resnet34": "resnet34",
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "mobilenetv2_100": "mobilenetv2_imagenet",
}
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"


class ModelFolder(NamedTuple):
    """What a folder says of its model.

    Attributes:
      file: the weights.
      network: kdjax's name of the architecture.
      num_classes: number of classes.
      side: of the images, in pixels.
      statistics: what images are normalized with.
    """

    file: Path
    network: str
    num_classes: int
    side: int
    statistics: normalization.Normalization

    def fitted(self, network: Network) -> Network:
        """The network read from the file, with the size of images that the folder says.

        Raises:
          UserError: it has another number of classes than the folder says.
        """
        if network.spec.num_classes != self.num_classes:
            raise UserError(
                f"{self.file}: has {network.spec.num_classes} classes, {_CONFIG} beside it says "
                f"{self.num_classes}"
            )
        images = dataclasses.replace(network.spec.input, size=(self.side, self.side))
        return Network(dataclasses.replace(network.spec, input=images), network.variables)


def read(folder: Path) -> ModelFolder:
    """Reads a folder's config.json; the weights are only looked for.

    Args:
      folder: holds config.json with 'architecture', 'num_classes' and 'pretrained_cfg' ('mean',
        'std', 'input_size'), and model.safetensors.

    Raises:
      UserError: a file is missing or damaged, or kdjax has no such architecture.
    """
    described = _read_json(folder / _CONFIG)
    if not (folder / _WEIGHTS).is_file():
        raise UserError(f"{folder}: has no {_WEIGHTS}; download it beside {_CONFIG}")
    architecture = described.get("architecture")
    if not isinstance(architecture, str):
        raise UserError(
            f"{folder / _CONFIG}: has no 'architecture', as timm's have; import {_WEIGHTS} by "
            "--torch_file and --network"
        )
    network = ARCHITECTURES.get(architecture.partition(".")[0])
    if network is None:
        raise UserError(
            f"{folder / _CONFIG}: architecture {architecture!r} is not among kdjax's networks; "
            f"there are {', '.join(ARCHITECTURES)}"
        )
    settings = described.get("pretrained_cfg")
    settings = settings if isinstance(settings, dict) else {}
    try:
        num_classes, (channels, height, width) = described["num_classes"], settings["input_size"]
        statistics = normalization.checked(
            settings["mean"], settings["std"], f"{folder / _CONFIG}: pretrained_cfg"
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder / _CONFIG}: needs 'num_classes', and 'mean', 'std' and 'input_size' in "
            f"'pretrained_cfg' ({type(error).__name__}: {error})"
        ) from error
    sizes = (num_classes, height, channels)
    if height != width or not all(isinstance(n, int) and n > 0 for n in sizes):
        raise UserError(
            f"{folder / _CONFIG}: num_classes={num_classes}, input_size={settings['input_size']}: "
            "needs a number of classes, and square images"
        )
    if len(statistics.mean) != channels:
        raise UserError(
            f"{folder / _CONFIG}: mean has not one number for each of {channels} channels"
        )
    return ModelFolder(folder / _WEIGHTS, network, num_classes, height, statistics)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        described = json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise UserError(
            f"{file.parent}: has no {file.name}; name a folder of a timm model, or a file"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged: {' '.join(str(error).split())}") from error
    if not isinstance(described, dict):
        raise UserError(f"{file} is damaged: it holds no settings")
    return described
