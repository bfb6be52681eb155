"""What a deployed network is shown: size, channels and normalization of its images."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from kdjax.errors import UserError
from kdjax.networks import InputSpec, Network, Normalization


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
    network: Network,
    normalization: Normalization | None = None,
    *,
    image_size: int = 0,
    pixels: bool = True,
) -> Images:
    """The images that a deployed network takes.

    Args:
      network: without branches.
      normalization: of its training, where its spec does not know it.
      image_size: side of square images; 0: as in its training.
      pixels: as in `Images`.

    Raises:
      UserError: the normalization is needed and not known, known and given, or of another number
        of channels; the network takes no images of this size.
    """
    name, images = network.spec.full_name, network.spec.input
    known = images.normalization
    if normalization is not None:
        if known is not None and known != normalization:
            raise UserError(f"--mean and --std: {name} was trained with {known}; leave them out")
        if len(normalization.mean) != images.channels:
            raise UserError(
                f"--mean and --std: {name} takes images of {images.channels} channels, not "
                f"{len(normalization.mean)}"
            )
        known = normalization
    if pixels and known is None:
        raise UserError(
            f"what {name} was trained with is not known: give --mean and --std, such as "
            "--mean=imagenet, or --export_input=normalized"
        )
    size = (image_size, image_size) if image_size else images.size
    dataclasses.replace(network.spec, input=InputSpec(size, images.channels)).abstract_variables()
    mean, std = known or (None, None)
    return Images((*size, images.channels), mean, std, pixels)
