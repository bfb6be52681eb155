"""All networks in one table: sizes, multiply-adds, shapes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.models import registry
from kdjax.models.count import multiply_adds, parameter_count

_COLUMNS = ("network", "PyTorch", "images", "parameters", "multiply-adds", "features", "embedding")


class Row(NamedTuple):
    """One network.

    Attributes:
      name: for `kdjax.models.create`.
      image_size: side of the images that the figures are for.
      num_classes: that the figures are for.
      parameters: number of parameters, BatchNorm's included.
      multiply_adds: of one image, as `kdjax.models.multiply_adds` counts.
      features: the shapes [H, W, C] of the stages' ends.
      embedding: width of the embedding.
    """

    name: str
    image_size: int
    num_classes: int
    parameters: int
    multiply_adds: int
    features: tuple[tuple[int, ...], ...]
    embedding: int


def row(name: str) -> Row:
    """The figures of a network, for the images that its papers use: 32x32 and 100 classes, or
    224x224 and 1000 classes. Nothing is computed but shapes."""
    size = registry.create(name, num_classes=1).image_size
    num_classes = 100 if size == 32 else 1000
    module: nn.Module = registry.create(name, num_classes=num_classes)
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    outputs, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), images)
    return Row(
        name,
        size,
        num_classes,
        parameter_count(variables["params"]),
        multiply_adds(module, (size, size, 3)),
        tuple(feature.shape[1:] for feature in outputs.features.values()),
        outputs.embedding.shape[-1],
    )


def markdown(constructors: Mapping[str, str]) -> str:
    """The table of all networks in Markdown.

    Args:
      constructors: the constructors of the official repositories, by the network's name.
    """
    rows = sorted(
        map(row, registry.names()), key=lambda network: (network.image_size, _order(network.name))
    )
    lines = [_line(_COLUMNS), _line(["---"] * len(_COLUMNS))]
    for network in rows:
        features = ", ".join("x".join(map(str, shape)) for shape in network.features)
        cells = (
            f"`{network.name}`",
            constructors.get(network.name, ""),
            f"{network.image_size}x{network.image_size}, {network.num_classes} classes",
            f"{network.parameters:,}",
            f"{network.multiply_adds:,}",
            features,
            str(network.embedding),
        )
        lines.append(_line(cells))
    return "\n".join(lines) + "\n"


def _order(name: str) -> list[int | str]:
    """Sort key of a name: numbers in it compare as numbers, so resnet8 comes before resnet20."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
