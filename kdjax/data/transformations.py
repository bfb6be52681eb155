"""Self-supervised transformations: sets of views of an image that a network learns to distinguish.

Pure functions of a batch on the device. Images are `[B, H, W, C]` of any dtype; normalized channels
are permuted as they are, as in the official code of SLA. View 0 is the image itself.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdjax.errors import UserError
from kdjax.registry import Registry


class Transformations(NamedTuple):
    """A set of M transformations of an image.

    Attributes:
      name: in `config.hssakd.transformations`.
      count: M.
      views: `[B, H, W, C] -> [B, M, H, W, C]`.
      view_names: names of the M views, for pictures.
    """

    name: str
    count: int  # type: ignore[assignment]  # of tuples it is a method
    views: Callable[[jax.Array], jax.Array]
    view_names: tuple[str, ...]

    def rows(self, images: jax.Array) -> jax.Array:
        """`[B, H, W, C] -> [B * M, H, W, C]`: row `M * b + j` is view j of image b."""
        return self.views(images).reshape(-1, *images.shape[1:])


def rotations(images: jax.Array) -> jax.Array:
    """Counter-clockwise by 0, 90, 180 and 270 degrees.

    Checked against the batches that HSAKD's `train_student_cifar.py` makes.

    Args:
      images: `[B, H, H, C]`.

    Returns:
      `[B, 4, H, H, C]`

    Raises:
      UserError: the images are not square.
    """
    height, width = images.shape[1:3]
    if height != width:
        raise UserError(
            f"images of {height}x{width} pixels cannot be rotated by 90 degrees; set "
            "config.data.image_size, or config.hssakd.transformations='color_permutations'"
        )
    return jnp.stack([jnp.rot90(images, turns, axes=(1, 2)) for turns in range(4)], axis=1)


def color_permutations(images: jax.Array) -> jax.Array:
    """The channels in all six orders: RGB, RBG, GRB, GBR, BRG, BGR.

    Source: Lee et al., ICML 2020, "Self-supervised Label Augmentation via Input Transformations",
    section 4.2; the order is that of `color_perm` in SLA augmentations.py.

    Args:
      images: `[B, H, W, 3]`.

    Returns:
      `[B, 6, H, W, 3]`

    Raises:
      UserError: the images do not have three channels.
    """
    if images.shape[-1] != 3:
        raise UserError(
            f"images of {images.shape[-1]} channels have no colors to permute; set "
            "config.hssakd.transformations='rotations'"
        )
    orders = jnp.asarray(list(itertools.permutations(range(3))))
    return jnp.moveaxis(images[..., orders], -2, 1)


def rotated_color_permutations(images: jax.Array) -> jax.Array:
    """Every rotation in every order of channels: view `6 * rotation + permutation`.

    The order is that of `rot_color_perm24` in SLA augmentations.py.

    Args:
      images: `[B, H, H, 3]`.

    Returns:
      `[B, 24, H, H, 3]`

    Raises:
      UserError: the images are not square or do not have three channels.
    """
    rotated = rotations(images)
    flat = rotated.reshape(-1, *images.shape[1:])
    return color_permutations(flat).reshape(images.shape[0], -1, *images.shape[1:])


_TURNS = tuple(f"rotation {90 * turns}" for turns in range(4))
_ORDERS = tuple("".join(order) for order in itertools.permutations("RGB"))
_BOTH = tuple(f"{turn}, {order}" for turn in _TURNS for order in _ORDERS)
_SETS: Registry[Transformations] = Registry("transformation set", "config.hssakd.transformations")
for _set in (
    Transformations("rotations", 4, rotations, _TURNS),
    Transformations("color_permutations", 6, color_permutations, _ORDERS),
    Transformations("both", 24, rotated_color_permutations, _BOTH),
):
    _SETS.add(_set.name, _set)
NAMES = tuple(_SETS)


def create(name: str) -> Transformations:
    """The set that `config.hssakd.transformations` names.

    Raises:
      UserError: unknown name.
    """
    return _SETS[name]
