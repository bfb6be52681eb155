"""The outputs of networks."""

from __future__ import annotations

from typing import NamedTuple

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

    logits: jax.Array | None
    features: dict[str, jax.Array]
    embedding: jax.Array | None
