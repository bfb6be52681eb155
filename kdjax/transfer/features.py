"""Features of trained networks over a whole split, each image once and not augmented."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kdjax.data import ArraySplit, Dataset, augment, order, stream
from kdjax.errors import UserError
from kdjax.models import Outputs
from kdjax.models.layers import global_average_pool
from kdjax.models.outputs import outputs_of
from kdjax.networks import Network
from kdjax.parallel import compiler_options

EMBEDDING = "embedding"


def pooled(outputs: Outputs, layer: str) -> jax.Array:
    """The features of a layer as vectors.

    Args:
      outputs: of a network.
      layer: 'embedding', or a stage such as 'stage2', which is averaged over its pixels.

    Returns:
      `[B, D]` float32.
    """
    if layer == EMBEDDING:
        return outputs.embedding.astype(jnp.float32)
    return global_average_pool(outputs.features[layer].astype(jnp.float32))


def layers_of(network: Network) -> tuple[str, ...]:
    """'stage1', 'stage2', ..., 'embedding'."""
    stages = network.backbone.module().num_stages
    return (*(f"stage{number}" for number in range(1, stages + 1)), EMBEDDING)


def check_layers(layers: Sequence[str], network: Network, where: str) -> None:
    """Checks that a network has the layers that are asked for.

    Args:
      layers: their names.
      network: a trained network.
      where: the flag that names the layers, for the message.

    Raises:
      UserError: it lacks one of them, or one is named twice.
    """
    known = layers_of(network)
    for layer in layers:
        if layer not in known:
            raise UserError(
                f"{where}={layer!r} is no layer of {network.spec.name}; use {', '.join(known)}"
            )
        if list(layers).count(layer) > 1:
            raise UserError(f"{where} names {layer!r} twice")


def extract(
    network: Network,
    dataset: Dataset,
    split: str,
    *,
    layers: Sequence[str] = (EMBEDDING,),
    batch_size: int = 500,
    workers: int = 0,
    crop_fraction: float = 0.875,
) -> dict[str, np.ndarray]:
    """Features of all images of a split, in its order, by a network in evaluation mode.

    The images of a batch are spread over the devices of this process.

    Args:
      network: without its branches.
      dataset: normalized as the network was trained.
      split: 'train' or 'test'.
      layers: of `layers_of`.
      batch_size: images at once.
      workers: `config.data.workers`, of streamed sets.
      crop_fraction: of `kdjax.data.augment.Augmentation`, for streamed sets.

    Returns:
      `{layer: float32 [N, D]}`.

    Raises:
      UserError: the images have another number of channels than the network takes, or are too
        small for it.
    """
    network = network.backbone
    channels = network.spec.input.channels
    if dataset.image_shape[-1] != channels:
        raise UserError(
            f"{network.spec.name} takes images of {channels} channels, the data has "
            f"{dataset.image_shape[-1]}"
        )
    devices = jax.local_devices()
    batch_size = -(-batch_size // len(devices)) * len(devices)
    mesh = Mesh(np.asarray(devices), ("images",))
    spread = NamedSharding(mesh, PartitionSpec("images"))
    module = network.module()

    def vectors(variables: Any, images: jax.Array) -> dict[str, jax.Array]:
        images = augment.normalize(images, dataset.mean, dataset.std)
        outputs = outputs_of(module, variables, images, train=False)
        return {layer: pooled(outputs, layer) for layer in layers}

    compiled = jax.jit(vectors, compiler_options=compiler_options())
    variables = jax.device_put(network.variables, NamedSharding(mesh, PartitionSpec()))
    size = len(getattr(dataset, split).labels)
    parts: dict[str, list[np.ndarray]] = {layer: [] for layer in layers}
    for images in _batches(dataset, split, batch_size, workers, crop_fraction):
        batch = compiled(variables, jax.device_put(images, spread))
        for layer, values in batch.items():
            parts[layer].append(np.asarray(values))
    return {layer: np.concatenate(values)[:size] for layer, values in parts.items()}


def _batches(
    dataset: Dataset, split: str, batch_size: int, workers: int, crop_fraction: float
) -> Iterator[np.ndarray]:
    """uint8 `[batch_size, H, W, C]`; the last batch is filled up with images seen before."""
    images = getattr(dataset, split)
    indices, mask = order.evaluation_order(len(images.labels), batch_size)
    if isinstance(images, ArraySplit):
        for row in indices:
            yield images.images[row]
        return
    reader = stream.evaluation_batches(
        images,
        indices,
        mask,
        image_size=dataset.image_shape[0],
        workers=workers,
        crop_fraction=crop_fraction,
    )
    try:
        for batch in reader:
            yield batch["image"]
    finally:
        reader.close()
