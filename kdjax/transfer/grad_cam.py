"""Where in an image a network finds a class: Grad-CAM."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.models.outputs import outputs_of


def grad_cam(
    network: nn.Module,
    variables: dict[str, Any],
    images: jax.Array,
    classes: jax.Array,
    *,
    stage: int,
) -> jax.Array:
    """Maps of the pixels that speak for a class, at the end of a stage.

    With the feature maps A_k of the stage and the logit y_c of the class, the weight of a map is
    the mean over its pixels of d y_c / d A_k, and the result is ReLU(sum_k weight_k A_k). At the
    last stage of a network with average pooling and one linear layer this is CAM, divided by the
    number of pixels.

    Source: Selvaraju et al., ICCV 2017, arXiv 1610.02391, equations 1 and 2.

    Args:
      network: a `kdjax.models.StagedNetwork`.
      variables: its `{'params': ..., 'batch_stats': ...}`.
      images: `[B, H, W, C]`, normalized.
      classes: int32 `[B]`, the class that is looked for in every image.
      stage: at whose end, from 1.

    Returns:
      `[B, h, w]` float32, of the stage's size; 0 or more.

    Raises:
      ValueError: the network has no such stage.
    """
    if not 1 <= stage <= network.num_stages:
        raise ValueError(f"stage={stage}: the network has stages 1..{network.num_stages}")
    outputs = outputs_of(network, variables, images, train=False, stop=stage)
    maps = outputs.features[f"stage{stage}"].astype(jnp.float32)

    def score(maps: jax.Array) -> jax.Array:
        logits = outputs_of(network, variables, maps, train=False, start=stage).logits
        return jnp.take_along_axis(logits, classes[:, None], axis=-1).sum()

    weights = jax.grad(score)(maps).mean((1, 2))
    return nn.relu(jnp.einsum("bhwk,bk->bhw", maps, weights, precision=jax.lax.Precision.HIGHEST))
