"""What all losses share."""

import jax
import jax.numpy as jnp


def at_least_float32(x: jax.Array) -> jax.Array:
    """Casts half precision up: a KL of nearly equal logits is wrong by its own size in bfloat16."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
