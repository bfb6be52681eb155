"""Recalibration of BatchNorm's running statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax

from kdjax.errors import UserError
from kdjax.models import BatchNorm


def recalibrate_batch_norm(
    network: nn.Module, variables: Mapping[str, Any], batches: Iterable[jax.Array]
) -> dict[str, Any]:
    """Replaces BatchNorm's running statistics by their averages over batches.

    Means and (unbiased) variances of the batches are averaged with equal weights, as
    `torch.nn.BatchNorm2d(momentum=None)` does. Parameters do not change.

    Args:
      network: any module of kdjax that takes images.
      variables: its variables.
      batches: images `[B, H, W, C]`, normalized as in training; one compilation per shape.

    Returns:
      The variables with the new 'batch_stats'.

    Raises:
      UserError: `batches` is empty.
    """

    def without_momentum(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if not isinstance(context.module, BatchNorm) or context.method_name != "__call__":
            return call(*args, **kwargs)
        # The module is a copy that `apply` has made; linen freezes its fields nevertheless.
        object.__setattr__(context.module, "momentum", 0.0)
        return call(*args, **kwargs)

    @jax.jit
    def statistics(images: jax.Array) -> Any:
        with nn.intercept_methods(without_momentum):
            _, updated = network.apply(variables, images, train=True, mutable=["batch_stats"])
        return updated["batch_stats"]

    total, count = None, 0
    for images in batches:
        current = statistics(images)
        total = current if total is None else jax.tree.map(lambda a, b: a + b, total, current)
        count += 1
    if not count:
        raise UserError("BatchNorm cannot be recalibrated without any batch of images")
    return {**variables, "batch_stats": jax.tree.map(lambda leaf: leaf / count, total)}
