"""Unit vectors with gradients that stay finite."""

import jax
import jax.numpy as jnp

# Vectors shorter than this have no direction.
SHORTEST = 1e-12


def unit(x: jax.Array, *, axis: int = -1, epsilon: float = 0.0) -> jax.Array:
    """`x / (|x| + epsilon)` along `axis`.

    A vector shorter than 1e-12 becomes 0 and gets no gradient. (`torch.nn.functional.normalize`
    divides it by 1e-12, and its gradient too.)

    Args:
      x: an array of float32 or float64.
      axis: the axis along which the vectors lie.
      epsilon: added to the length.

    Returns:
      An array like `x`.
    """
    squares = jnp.sum(jnp.square(x), axis=axis, keepdims=True)
    has_direction = squares > SHORTEST**2
    # The inner where keeps the square root's infinite derivative out of the gradient.
    length = jnp.sqrt(jnp.where(has_direction, squares, 1.0))
    return jnp.where(has_direction, x / (length + epsilon), 0.0)
