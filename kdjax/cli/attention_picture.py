"""Images, each beside the pixels in which networks find the class that they predict."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.cli.frozen import Frozen
from kdjax.cli.neighbor_picture import picture_of
from kdjax.cli.picture_sheet import CaptionedPictures
from kdjax.data import augment
from kdjax.errors import UserError
from kdjax.models.outputs import outputs_of
from kdjax.networks import Network
from kdjax.training.input_images import normalized
from kdjax.transfer.grad_cam import grad_cam

_STRENGTH = 0.7  # of the red in the pixel of the highest value
_RED = np.array([255, 0, 0], np.float32)


def rows(frozen: Frozen, split: str, *, stage: int, limit: int) -> CaptionedPictures:
    """Images from all over a split, before a picture of Grad-CAM by every network.

    Captions have the image's class, and the class that a network predicts.

    Args:
      frozen: networks and data.
      split: 'train' or 'test'.
      stage: of `grad_cam`; 0 is the last.
      limit: how many pictures are drawn at most.

    Raises:
      UserError: a network lacks the stage, or takes other images.
    """
    dataset, names = frozen.dataset, frozen.dataset.class_names
    images = getattr(dataset, split)
    count = max(1, min(limit // (1 + len(frozen.networks)), len(images.labels)))
    chosen = np.linspace(0, len(images.labels) - 1, count).astype(np.int64)
    pixels = np.stack([picture_of(images, int(n), dataset.image_shape) for n in chosen])
    pictures, captions = [pixels], [[names[label] for label in images.labels[chosen]]]
    for name, network in frozen.networks.items():
        predicted, maps = _seen(frozen, network.backbone, pixels, stage, name)
        pictures.append(overlaid(pixels, maps))
        captions.append([f"{name}: {_named(names, label)}" for label in predicted])
    stacked = np.stack(pictures, axis=1)
    texts = [text for of_image in zip(*captions, strict=True) for text in of_image]
    return CaptionedPictures(stacked.reshape(-1, *stacked.shape[2:]), texts, len(images.labels))


def overlaid(pixels: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """uint8 images `[B, H, W, 3]`, red where maps `[B, h, w]` are high for their image."""
    size = (len(maps), *pixels.shape[1:3])
    heat = np.array(jax.image.resize(jnp.asarray(maps), size, "bilinear", antialias=False))
    heat /= np.maximum(heat.max((1, 2), keepdims=True), np.finfo(np.float32).tiny)
    alpha = _STRENGTH * heat[..., None]
    colored = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
    return np.rint((1 - alpha) * colored + alpha * _RED).astype(np.uint8)


def _seen(
    frozen: Frozen, network: Network, pixels: np.ndarray, stage: int, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """The predicted classes `[B]`, and `grad_cam` of them."""
    module, channels = network.module(), network.spec.input.channels
    if pixels.shape[-1] != channels or channels not in (1, 3):
        raise UserError(
            f"{name} takes images of {channels} channels, the data has {pixels.shape[-1]}; "
            "pictures have 1 or 3"
        )
    if stage > module.num_stages:
        raise UserError(f"--stage={stage}: {name} has stages 1..{module.num_stages}")
    dataset = normalized(frozen.dataset, network.spec.input.normalization, frozen.config)

    @functools.partial(jax.jit, static_argnames="stage")
    def seen(variables: Any, pixels: jax.Array, stage: int) -> tuple[jax.Array, jax.Array]:
        images = augment.normalize(pixels, dataset.mean, dataset.std)
        predicted = outputs_of(module, variables, images, train=False).logits.argmax(-1)
        return predicted, grad_cam(module, variables, images, predicted, stage=stage)

    return jax.device_get(seen(network.variables, pixels, stage or module.num_stages))


def _named(names: Sequence[str], label: int) -> str:
    """The class's name; its number, where the data has other classes than the network."""
    return names[label] if label < len(names) else str(label)
