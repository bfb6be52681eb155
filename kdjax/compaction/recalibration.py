"""BatchNorm's running statistics, estimated anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax

from kdjax.errors import UserError
from kdjax.models import BatchNorm
from kdjax.models.narrowing import changed


def recalibrate_batch_norm(
    network: nn.Module, variables: Mapping[str, Any], batches: Iterable[jax.Array]
) -> dict[str, Any]:
    """The variables with running statistics that are the plain averages over `batches`.

    Every batch counts the same: means and (unbiased) variances of the batches are averaged, as
    `torch.nn.BatchNorm2d(momentum=None)` does. Nothing else changes.

    Args:
      network: any module of kdjax that takes images.
      variables: its variables.
      batches: images `[B, H, W, C]`, normalized as in training; one compilation per shape.

    Raises:
      UserError: no batch.
    """

    def forget(call, args, kwargs, context):
        if not isinstance(context.module, BatchNorm) or context.method_name != "__call__":
            return call(*args, **kwargs)
        with changed(context.module, momentum=0.0):
            return call(*args, **kwargs)

    @jax.jit
    def statistics(images):
        with nn.intercept_methods(forget):
            _, updated = network.apply(variables, images, train=True, mutable=["batch_stats"])
        return updated["batch_stats"]

    total, count = None, 0
    for images in batches:
        found = statistics(images)
        total = found if total is None else jax.tree.map(lambda a, b: a + b, total, found)
        count += 1
    if not count:
        raise UserError("BatchNorm cannot be recalibrated without any batch of images")
    return {**variables, "batch_stats": jax.tree.map(lambda leaf: leaf / count, total)}
