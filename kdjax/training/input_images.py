"""The images of a data set, as networks see them."""

from __future__ import annotations

import numpy as np
from ml_collections import ConfigDict

from kdjax.data import Dataset
from kdjax.errors import UserError
from kdjax.networks import InputSpec, Normalization


def input_spec(dataset: Dataset) -> InputSpec:
    """The images of a data set, as a network sees them."""
    height, width, channels = dataset.image_shape
    mean, std = (tuple(map(float, values)) for values in (dataset.mean, dataset.std))
    return InputSpec((height, width), channels, Normalization(mean, std))


def normalized(
    dataset: Dataset, normalization: Normalization | None, config: ConfigDict
) -> Dataset:
    """The data normalized as the weights that a run starts from were trained.

    Raises:
      UserError: these weights are for another number of channels, or `config.data.mean` and `std`
        say otherwise.
    """
    if normalization is None:
        return dataset
    channels, source = dataset.image_shape[-1], config.data.source
    if len(normalization.mean) != channels:
        raise UserError(
            f"the trained network takes images of {len(normalization.mean)} channels, "
            f"config.data.source={source} has {channels}"
        )
    mean, std = (np.asarray(values, np.float32) for values in normalization)
    given = (dataset.mean, dataset.std)
    if config.data.mean and not all(map(np.allclose, given, (mean, std))):
        raise UserError(
            f"config.data.mean and config.data.std are not what the network was trained with, "
            f"{normalization}: leave them out, or set these"
        )
    return dataset._replace(mean=mean, std=std)
