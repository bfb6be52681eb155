"""What a deployed network is shown: size, channels and normalization of its images."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax
import jax
import numpy as np
from ml_collections import ConfigDict

from kdjax import data
from kdjax.errors import UserError
from kdjax.networks.store import Pretrained

_CHANNELS = (3, 1, 2, 4)  # that images may have, the likely first


class Images(NamedTuple):
    """The images that a function takes: float32 `[B, *shape]`, any B.

    Attributes:
      shape: (H, W, C) of one.
      mean, std: C numbers each, in units of [0, 1], or None where they are not known.
      pixels: whether it takes pixels in [0, 1] and normalizes them itself; else they come
        normalized, `(pixels - mean) / std`.
    """

    shape: tuple[int, int, int]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    pixels: bool

    def normalized(self, images: jax.Array) -> jax.Array:
        """What the network gets to see of `images`."""
        if not self.pixels:
            return images
        mean, std = np.asarray(self.mean, np.float64), np.asarray(self.std, np.float64)
        return (images - mean.astype(np.float32)) * (1 / std).astype(np.float32)

    def __str__(self) -> str:
        sizes = ", ".join(map(str, self.shape))
        return f"float32 [batch, {sizes}], {self._values()}"

    def _values(self) -> str:
        return "pixels in [0, 1]" if self.pixels else "(pixels in [0, 1] - mean) / std"

    def random(self, count: int) -> np.ndarray:
        """Images of noise, `[count, *shape]`."""
        random = np.random.default_rng(0)
        shape = (count, *self.shape)
        return (random.random(shape) if self.pixels else random.normal(size=shape)).astype("f4")

    def described(self) -> dict[str, Any]:
        """All of it, for a JSON file."""
        return {
            "name": "images",
            "shape": ["batch", *self.shape],
            "dtype": "float32",
            "values": self._values(),
            "mean": self.mean,
            "std": self.std,
        }


def images_of(
    network: Pretrained, config: ConfigDict | None, *, image_size: int = 0, pixels: bool = True
) -> Images:
    """The images of a network, as far as its run or the caller says.

    Data are opened only for what is needed and said neither by `config.data.mean` and
    `config.data.image_size` nor by the caller.

    Args:
      network: without branches.
      config: of its run, or another with its data; None: nothing is known of them.
      image_size: side of square images; 0: as in the data, or what the network was made for.
      pixels: as in `Images`.

    Raises:
      UserError: mean and deviation are not known but needed; the data cannot be opened, or have
        another number of classes; the network takes no such images.
    """
    if config is not None:
        images = _of_config(network, config, image_size, pixels)
    elif pixels:
        raise UserError(
            "an imported or compact network has no data, of which mean and deviation are needed: "
            "add --config, for instance --config configs/cross_entropy.py:cifar100, or "
            "--export_input=normalized"
        )
    else:
        side = image_size or network.module().image_size
        images = Images((side, side, _channels(network, side, side)), None, None, pixels)
    channels = _channels(network, *images.shape[:2])
    if images.shape[2] != channels:
        raise UserError(
            f"{network.name} takes images of {channels} channels, config.data has {images.shape[2]}"
        )
    return images


def _of_config(network: Pretrained, config: ConfigDict, image_size: int, pixels: bool) -> Images:
    side = image_size or config.data.image_size
    if side and config.data.mean:
        mean, std = (tuple(map(float, each)) for each in (config.data.mean, config.data.std))
        if len(mean) != len(std) or min(std) <= 0:
            raise UserError("config.data.std: give one number above 0 for each of config.data.mean")
        return Images((side, side, len(mean)), mean, std, pixels)
    if side and not pixels:
        return Images((side, side, _channels(network, side, side)), None, None, pixels)
    try:
        dataset = data.load(config)
    except UserError as error:
        raise UserError(
            f"{error}; or export without the data: --export_input=normalized --image_size=N"
        ) from error
    if dataset.num_classes != network.num_classes:
        raise UserError(
            f"{network.name} has {network.num_classes} classes, config.data.source="
            f"{config.data.source} has {dataset.num_classes}"
        )
    height, width, channels = dataset.image_shape
    shape = (side or height, side or width, channels)
    mean, std = (tuple(map(float, each)) for each in (dataset.mean, dataset.std))
    return Images(shape, mean, std, pixels)


def _channels(network: Pretrained, height: int, width: int) -> int:
    """How many channels the images of a network have."""
    module = network.module()
    for channels in _CHANNELS:
        images = jax.ShapeDtypeStruct((1, height, width, channels), np.float32)
        try:
            jax.eval_shape(module.apply, network.variables, images)
        except flax.errors.ScopeParamShapeError:
            continue
        return channels
    raise UserError(
        f"{network.name} takes images of none of {', '.join(map(str, _CHANNELS))} channels"
    )
