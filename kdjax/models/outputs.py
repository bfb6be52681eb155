"""The outputs of networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax


class Outputs(NamedTuple):
    """The outputs of one network, complete or up to a stage.

    Attributes:
      logits: `[B, num_classes]`, float32 (float64 where the network computes in float64), or None
        where the network was stopped early.
      features: `{'stage1': [B, H, W, C], 'stage2': ..., ...}`, the end of every stage that was
        run, NHWC, in the compute dtype.
      embedding: `[B, D]`, the penultimate vector (after global average pooling) in the compute
        dtype, or None where the network was stopped early.
    """

    # `| Any` in place of `| None`: whoever runs a network to its end need not ask.
    logits: jax.Array | Any
    features: dict[str, jax.Array]
    embedding: jax.Array | Any


def outputs_of(
    module: nn.Module, variables: Mapping[str, Any], *arguments: Any, **options: Any
) -> Any:
    """What a module returns while its variables stay as they are, by `module.apply`.

    To type checkers, `apply` may return changed variables too; here it never does.

    Args:
      module: any linen module.
      variables: its variables.
      *arguments: of the module's `__call__`.
      **options: likewise by keyword; of `apply`, all but `mutable`.
    """
    return module.apply(variables, *arguments, **options)
