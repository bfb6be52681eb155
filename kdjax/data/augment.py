"""Augmentation and normalization on the device: pure functions of a key and a uint8 batch.

Images are uint8 [B, H, W, C], keys are typed (`jax.random.key`). Crops and flips are drawn for
every image of a batch. They precede `normalize`, so that crops are padded with black pixels, as by
torchvision's transforms.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from kdjax.data import contrastive_views
from kdjax.data.images import contrastive_crop, random_resized_crop
from kdjax.registry import Registry

Augment = Callable[[jax.Array, jax.Array], jax.Array]
Crop = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


class Augmentation(NamedTuple):
    """How training images are augmented, and which part of a test image is evaluated.

    Attributes:
      augment: `(key, uint8 [B, H, W, C]) -> uint8 [B, H, W, C]`, on the device.
      crop: `(uint8 [h, w, C], size, generator) -> uint8 [size, size, C]`, called on the host for
        each view of a decoded image; such sets are streamed. None: all views are made from the
        image in memory, or from its central square.
      evaluation_crop: share of the shorter side of larger images that streamed evaluation keeps.
    """

    augment: Augment
    crop: Crop | None = None
    evaluation_crop: float = 1.0


AUGMENTATIONS: Registry[Augmentation] = Registry("augmentation", "config.data.augmentation")


def register_augmentation(
    name: str, augment: Augment, *, crop: Crop | None = None, evaluation_crop: float = 1.0
) -> None:
    """Registers an `Augmentation` as `config.data.augmentation=NAME`.

    Args:
      name: of the setting.
      augment: on the device; see `Augmentation`.
      crop: on the host, or None. A function of a module, because worker processes import it.
      evaluation_crop: share of the shorter side that streamed evaluation keeps, in (0, 1].

    Raises:
      ValueError: the name is registered already, by another definition, or `evaluation_crop` is
        out of range.
    """
    if not 0 < evaluation_crop <= 1:
        raise ValueError(f"evaluation_crop={evaluation_crop} must be in (0, 1]")
    AUGMENTATIONS.add(name, Augmentation(augment, crop, evaluation_crop), augment)


def random_crop(key: jax.Array, images: jax.Array, padding: int = 4) -> jax.Array:
    """Pads each image with `padding` zeros on every side and cuts a random [H, W] window.

    Args:
      key: typed PRNG key.
      images: uint8 [B, H, W, C].
      padding: pixels; 0 returns the images.

    Returns:
      uint8 [B, H, W, C]
    """
    _, height, width, channels = images.shape
    offsets = jax.random.randint(key, (images.shape[0], 2), 0, 2 * padding + 1)
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))

    def window(image: jax.Array, offset: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), (height, width, channels))

    return jax.vmap(window)(padded, offsets)


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors images [B, H, W, C] left to right, each with probability 1/2."""
    flip = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(flip, images[:, :, ::-1], images)


def normalize(
    images: ArrayLike,
    mean: ArrayLike | Sequence[float],
    std: ArrayLike | Sequence[float],
    dtype: DTypeLike = jnp.float32,
) -> jax.Array:
    """(images / 255 - mean) / std, computed in float32.

    It is one subtraction and one multiplication, which compilers cannot fuse into one rounding, so
    that the result has the same bits in all programs.

    Args:
      images: uint8 [B, H, W, C].
      mean: [C] in units of [0, 1].
      std: [C] in units of [0, 1].
      dtype: of the result.

    Returns:
      dtype [B, H, W, C]
    """
    offset = np.asarray(255.0 * np.asarray(mean, np.float64), np.float32)
    scale = np.asarray(1.0 / (255.0 * np.asarray(std, np.float64)), np.float32)
    return ((jnp.asarray(images, jnp.float32) - offset) * scale).astype(dtype)


def _crop_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    crop_key, flip_key = jax.random.split(key)
    return random_flip(flip_key, random_crop(crop_key, images))


def _contrastive(key: jax.Array, images: jax.Array) -> jax.Array:
    view_key, flip_key = jax.random.split(key)
    return random_flip(flip_key, contrastive_views.view(view_key, images))


def _recolored(key: jax.Array, images: jax.Array) -> jax.Array:
    view_key, flip_key = jax.random.split(key)
    return random_flip(flip_key, contrastive_views.recolored_view(view_key, images))


def _none(key: jax.Array, images: jax.Array) -> jax.Array:
    del key
    return images


register_augmentation("crop_flip", _crop_flip)
register_augmentation("crop", random_crop)
register_augmentation(
    "resized_crop_flip", random_flip, crop=random_resized_crop, evaluation_crop=0.875
)
register_augmentation("contrastive", _contrastive)
register_augmentation(
    "contrastive_streamed", _recolored, crop=contrastive_crop, evaluation_crop=0.875
)
register_augmentation("none", _none)
