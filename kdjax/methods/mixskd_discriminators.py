"""MixSKD's discriminators: which of two pooled maps comes from images, which from their mixture.

Source: Yang et al., ECCV 2022, arXiv 2208.05768, equation of the adversarial term; what
`methods.mixskd` trains or, as the official scripts do, keeps at its initial weights.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.errors import UserError
from kdjax.losses import Mixture
from kdjax.models import Cohort, Outputs, SelfTaughtOutputs, layers, self_teacher
from kdjax.models.outputs import outputs_of
from kdjax.numerics import accumulation_dtype

# Key of the discriminators among the parameters or, if they are not trained, the constants.
DISCRIMINATORS = "discriminators"
_HIDDEN = 128


class Discriminator(nn.Module):
    """Maps average-pooled features `[B, C]` to logits `[B, 2]` of 'interpolated' and 'mixed'.

    Linear, ReLU, linear. Source: `Discriminator` in Self-KD-Lib methods/adversarial.py.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dtype = accumulation_dtype(x.dtype)
        x = layers.dense(x.shape[-1], _HIDDEN, dtype=dtype, name="hidden")(x)
        return layers.dense(_HIDDEN, 2, dtype=dtype, name="output")(nn.relu(x))


def stages(outputs: SelfTaughtOutputs) -> dict[str, Outputs]:
    """The outputs with logits and feature maps: 'branch1', 'branch2', ..., then 'backbone'."""
    return {**outputs.branches, "backbone": outputs.backbone}


def init_discriminators(
    cohort: Cohort, key: jax.Array, params: Any, model_state: Any, images: jax.Array
) -> dict[str, Any]:
    """Parameters of a discriminator for every stage of every network, by their names."""
    shapes = jax.eval_shape(
        functools.partial(cohort.apply, train=False),
        {"params": params["cohort"], "batch_stats": model_state["batch_stats"]},
        images,
    )
    params_by_network = {}
    for index, outputs in enumerate(shapes):
        maps = {name: self_teacher.last_map(stage) for name, stage in stages(outputs).items()}
        _check_maps(index, {name: x.shape[1:] for name, x in maps.items()})
        network_key = jax.random.fold_in(key, index)
        params_by_network[f"network_{index}"] = {
            name: Discriminator().init(stage_key, jnp.zeros((1, x.shape[-1])))["params"]
            for stage_key, (name, x) in zip(
                jax.random.split(network_key, len(maps)), maps.items(), strict=True
            )
        }
    return params_by_network


def discriminate(
    maps: dict[str, jax.Array], params: dict[str, Any], mixture: Mixture
) -> list[losses.MixedPair]:
    """Logits `[B, 2]` of every stage: of images' pooled maps, interpolated, and of mixtures'.

    Args:
      maps: the last maps of the stages, `[2 B, H, W, C]`: of images, then of their mixtures.
      params: of one network's discriminators, by stage.
      mixture: which images were mixed, and how.
    """
    discriminated = []
    for name, x in maps.items():
        promoted = x.astype(accumulation_dtype(x.dtype))
        averaged = losses.mixed_pair(layers.global_average_pool(promoted), mixture)
        scores = functools.partial(outputs_of, Discriminator(), {"params": params[name]})
        discriminated.append(jax.tree.map(scores, averaged))
    return discriminated


def _check_maps(index: int, shapes: dict[str, tuple[int, ...]]) -> None:
    if len(set(shapes.values())) > 1:
        described = ", ".join(
            f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items()
        )
        raise UserError(
            f"method 'mixskd' needs last maps of one shape in all branches of network_{index}, "
            f"which has {described}; name another network in config.networks"
        )
