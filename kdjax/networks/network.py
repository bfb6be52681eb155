"""A network with its weights, and what it says of images."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from kdjax import models
from kdjax.data.augment import normalize
from kdjax.errors import UserError
from kdjax.models.outputs import outputs_of
from kdjax.networks.normalization import Normalization
from kdjax.networks.spec import NetworkSpec

_BATCH_SIZE = 256  # of `Network.logits` and `Network.predict`


class Network(NamedTuple):
    """A network and its weights.

    Attributes:
      spec: what the network is.
      variables: `{'params': ..., 'batch_stats': ...}`, numpy arrays.
    """

    spec: NetworkSpec
    variables: dict[str, Any]

    def module(self, **options: Any) -> nn.Module:
        """The network without weights; `options` are those of `NetworkSpec.build`."""
        return self.spec.build(**options)

    @property
    def backbone(self) -> Network:
        """The network without its form: without branches.

        Raises:
          UserError: another head is in the place of the network's classifier.
        """
        if not self.spec.form.name:
            return self
        if not self.spec.form.classifies:
            raise UserError(
                f"{self.spec.full_name} has no classifier of images; start from it by "
                "config.start.checkpoint, or export its state dict (--job=export --formats=torch "
                "--torch_file=FILE)"
            )
        variables = {name: tree["backbone"] for name, tree in self.variables.items()}
        return Network(self.spec.backbone, variables)

    def apply(self, images: np.ndarray) -> models.Outputs:
        """The outputs of the network, without its branches, for images as they are stored.

        Pixels are normalized by `spec.input.normalization`, the statistics of the network's
        training. The function is compiled once for every spec and number of images. For images that
        are normalized already, use `network.module().apply(network.variables, images)`.

        Args:
          images: uint8 `[B, H, W, C]`, of `spec.input.shape`.

        Returns:
          Logits `[B, N]`, the features of all stages and the embedding.

        Raises:
          UserError: images of another type or shape, statistics that are not known, or a network
            without a classifier.
        """
        network = self.backbone
        _check_images(network.spec, images)
        return _compiled(network.spec)(network.variables, images)

    def logits(self, images: np.ndarray, *, batch_size: int = _BATCH_SIZE) -> np.ndarray:
        """The logits of any number of images, computed in batches.

        Args:
          images: uint8 `[M, H, W, C]`, as in `apply`.
          batch_size: number of images computed at once.

        Returns:
          float32 `[M, N]`.

        Raises:
          UserError: as `apply`.
        """
        network = self.backbone
        _check_images(network.spec, images)
        computed = [np.zeros((0, self.spec.num_classes), np.float32)]
        for start in range(0, len(images), batch_size):
            batch = np.asarray(images[start : start + batch_size])
            padding = min(batch_size, len(images)) - len(batch)  # one size is compiled once
            padded = np.pad(batch, ((0, padding), (0, 0), (0, 0), (0, 0)))
            logits = np.asarray(_compiled(network.spec)(network.variables, padded).logits)
            computed.append(logits[: len(batch)])
        return np.concatenate(computed)

    def predict(self, images: np.ndarray, *, batch_size: int = _BATCH_SIZE) -> np.ndarray:
        """The probabilities of the classes for any number of images.

        Args:
          images: uint8 `[M, H, W, C]`, as in `apply`.
          batch_size: number of images computed at once.

        Returns:
          float32 `[M, N]`, the softmax of the logits.

        Raises:
          UserError: as `apply`.
        """
        return softmax(self.logits(images, batch_size=batch_size))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities float32 `[..., N]` of logits `[..., N]`."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True), dtype=np.float64)
    return (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)


def _check_images(spec: NetworkSpec, images: np.ndarray) -> None:
    """Raises `UserError` unless a network may be shown these images."""
    kind, shape = getattr(images, "dtype", None), getattr(images, "shape", ())
    if kind != np.uint8:
        raise UserError(
            f"images are of type {kind}: give pixels as uint8 [B, H, W, C]; images that are "
            "normalized already go through network.module().apply(network.variables, images)"
        )
    if len(shape) != 4 or tuple(shape[1:]) != spec.input.shape:
        wanted = ", ".join(map(str, spec.input.shape))
        raise UserError(
            f"images are of shape {tuple(shape)}: {spec.name} takes [B, {wanted}]; bring each to "
            "that size, for instance by kdjax.data.images.fit(pixels, size)"
        )
    _statistics(spec)


def _statistics(spec: NetworkSpec) -> Normalization:
    """What a network's images are normalized with; `UserError` where that is not known."""
    if spec.input.normalization is None:
        raise UserError(
            f"{spec.name} does not say by which mean and std its images are normalized: import it "
            "with --mean and --std"
        )
    return spec.input.normalization


@functools.lru_cache(maxsize=16)
def _compiled(spec: NetworkSpec) -> Callable[[Any, np.ndarray], models.Outputs]:
    module, statistics = spec.build(), _statistics(spec)

    @jax.jit
    def outputs(variables: Any, images: jax.Array) -> models.Outputs:
        pixels = normalize(images, statistics.mean, statistics.std)
        return outputs_of(module, variables, pixels)

    return outputs
