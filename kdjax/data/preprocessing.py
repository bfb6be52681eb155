"""Preprocessing of batches on the devices: gathering, augmentation, normalization."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.data import augment, policies
from kdjax.data.dataset import Dataset

Arrays = dict[str, Any]


class Canvas(NamedTuple):
    """Images of different sizes, padded to one size.

    Attributes:
      pixels: `[B, H, W, C]`, normalized, zero beyond the images.
      sizes: int32 `[B, 2]`, height and width of every image, from the upper left corner.
    """

    pixels: jax.Array
    sizes: jax.Array


# What an image's key is folded with for other views than the first, and for policies. Far from 0:
# `jax.random.split(key)[i]` is `fold_in(key, i)`, and splitting is what crops and flips do.
_POLICIES = 2**16
_VIEWS = 2**17


def train_input(
    dataset: Dataset, augmentation: str, *, views: int = 1, policy_names: Sequence[str] = ()
) -> Callable[..., Arrays]:
    """`(constants, batch, key, positions) -> method batch`: gather, augment, normalize.

    The key of every view is derived from the step's key, the image's position in the global batch
    and the number of the view, so that the result does not depend on the number of devices. The
    first view does not depend on the number of views, nor do crops and flips depend on policies.

    Args:
      dataset: its mean and standard deviation are those of the normalization.
      augmentation: `config.data.augmentation`.
      views: `config.data.views`; from 2 on, batches have 'views' `[B, V, H, W, C]`, and 'image' is
        the first of them.
      policy_names: `config.data.policies`, applied after crops and flips.

    Raises:
      UserError: unknown augmentation or policy.
    """
    gray = tuple(round(255 * float(value)) for value in dataset.mean)  # 0 when it is normalized
    augment_images = augmenter(augmentation, policy_names, fill=gray)

    def prepare(constants: Arrays, batch: Arrays, key: jax.Array, positions: jax.Array) -> Arrays:
        images, labels = _look_up(constants, batch)
        if images.ndim == 4:  # not cropped where it was decoded: all views are made of one image
            images = jnp.repeat(images[:, None], views, axis=1)
        flat = images.reshape(-1, *images.shape[2:])
        flat = augment_images(_image_keys(key, positions, views).reshape(-1), flat)
        normalized = augment.normalize(flat, dataset.mean, dataset.std).reshape(images.shape)
        method_batch = {"image": normalized[:, 0], "label": labels, "index": batch["index"]}
        return method_batch | {"views": normalized} if views > 1 else method_batch

    return prepare


_fold_in = jax.vmap(jax.random.fold_in, in_axes=(0, None))


def _image_keys(key: jax.Array, positions: jax.Array, views: int) -> jax.Array:
    """The keys `[B, V]` of all views of the images at `positions` of the global batch."""
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)
    return jnp.stack([keys, *(_fold_in(keys, _VIEWS + view) for view in range(1, views))], axis=1)


def augmenter(
    augmentation: str, policy_names: Sequence[str], fill: tuple[int, ...] | int = 0
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """`(keys [N], uint8 images [N, H, W, C]) -> uint8 images`, by the key of each image.

    Raises:
      UserError: unknown augmentation or policy.
    """
    augment_batch = augment.AUGMENTATIONS[augmentation].augment

    def augment_image(key: jax.Array, image: jax.Array) -> jax.Array:
        return augment_batch(key, image[None])[0]

    augment_images = jax.vmap(augment_image)
    if not policy_names:
        return augment_images
    policy = policies.create(tuple(policy_names), fill=fill)
    return lambda keys, images: policy(_fold_in(keys, _POLICIES), augment_images(keys, images))


def masked_train_input(
    dataset: Dataset, augment_pairs: Callable[..., tuple[jax.Array, jax.Array]]
) -> Callable[..., Arrays]:
    """`train_input` of images with masks, which are augmented together.

    Args:
      dataset: with masks, held on the device or streamed.
      augment_pairs: `Method.augment`.
    """
    fill = 255 * np.asarray(dataset.mean, np.float32)

    def prepare(constants: Arrays, batch: Arrays, key: jax.Array, positions: jax.Array) -> Arrays:
        index, keys = batch["index"], _image_keys(key, positions, 1)[:, 0]
        if constants:
            batch = {name: array[index] for name, array in constants.items()}
        images, masks = augment_pairs(keys, batch["image"], batch["masks"], batch["sizes"], fill)
        return {
            "image": augment.normalize(images, dataset.mean, dataset.std),
            "label": batch["label"],
            "masks": masks.astype(jnp.int32),
            "index": index,
        }

    return prepare


def objects_train_input(dataset: Dataset) -> Callable[..., Arrays]:
    """`train_input` of images with objects, which were augmented when they were decoded.

    Args:
      dataset: streamed, with objects.
    """

    def prepare(constants: Arrays, batch: Arrays, key: jax.Array, positions: jax.Array) -> Arrays:
        del constants, key, positions
        return batch | {"image": _canvas(dataset, batch).pixels}

    return prepare


def _canvas(dataset: Dataset, batch: Arrays) -> Canvas:
    pixels = augment.normalize(batch["image"], dataset.mean, dataset.std)
    height, width = pixels.shape[1:3]
    sizes = batch["sizes"][:, None, None]
    inside = jnp.arange(height)[:, None] < sizes[..., 0]
    inside &= jnp.arange(width) < sizes[..., 1]
    return Canvas(jnp.where(inside[..., None], pixels, 0), batch["sizes"])


def test_input(dataset: Dataset) -> Callable[..., tuple[jax.Array | Canvas, jax.Array]]:
    """`(constants, batch) -> images, labels`: gather and normalize.

    The labels of images with masks are the masks, int32 `[B, H, W]`. Images with objects are a
    `Canvas`.
    """

    def prepare(constants: Arrays, batch: Arrays) -> tuple[jax.Array | Canvas, jax.Array]:
        if dataset.has_objects:
            return _canvas(dataset, batch), batch["label"]
        images, labels = _look_up(constants, batch)
        if dataset.has_masks:
            masks = constants["masks"][batch["index"]] if constants else batch["masks"]
            labels = masks.astype(jnp.int32)
        return augment.normalize(images, dataset.mean, dataset.std), labels

    return prepare


def _look_up(constants: Arrays, batch: Arrays) -> tuple[jax.Array, jax.Array]:
    if constants:
        return constants["image"][batch["index"]], constants["label"][batch["index"]]
    return batch["image"], batch["label"]
