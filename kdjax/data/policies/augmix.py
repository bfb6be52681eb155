"""AugMix."""

import jax
import jax.numpy as jnp

from kdjax.data.policies import draws, magnitudes, operations

NAMES = (*magnitudes.GEOMETRIC, "Posterize", "Solarize", *magnitudes.PLAIN, *magnitudes.BLENDS)
BINS = 10
DEPTH = 3  # the longest chain
_STEPS = 2**11  # a weight is a whole number of these


def augmix(
    keys: jax.Array, images: jax.Array, *, severity: int = 3, mixture_width: int = 3
) -> jax.Array:
    """Mixes each image with `mixture_width` chains of one to three operations on it.

    The weights of the chains, and that of the image against all of them, are uniform on their
    simplices: Dirichlet with alpha = 1. They are multiples of 2**-22, so that the mixture is exact
      and
    equal on all devices; it is rounded to the nearest level.

    Args:
      keys: typed PRNG keys [B].
      images: uint8 [B, H, W, C], C = 1 or 3.
      severity: number of magnitudes, from the weakest of ten, that are drawn from.
      mixture_width: number of chains.

    Returns:
      uint8 [B, H, W, C]

    References:
      Hendrycks et al., AugMix: A Simple Data Processing Method to Improve Robustness and
      Uncertainty, 2020, without its consistency loss; torchvision's `AugMix` with `all_ops`, which
      interpolates bilinearly and cuts fractions of levels off, where this takes nearest pixels.
    """
    batch, height, width, channels = images.shape
    rows = _rows(severity, height, width)
    table = operations.tabulate([*rows, ("Identity", 0.0)], height, width)
    numbers = draws.uniform(keys, mixture_width * (DEPTH + 2))
    chosen, depths, cuts = jnp.split(
        numbers, [mixture_width * DEPTH, mixture_width * (DEPTH + 1)], axis=1
    )
    chosen = draws.choose(chosen, len(rows)).reshape(batch * mixture_width, DEPTH)
    depths = 1 + draws.choose(depths, DEPTH).reshape(-1, 1)
    chosen = jnp.where(jnp.arange(DEPTH) < depths, chosen, len(rows))
    chains = jnp.repeat(images, mixture_width, axis=0)
    for i in range(DEPTH):
        chains = operations.apply(table, chosen[:, i], chains)
    chains = chains.reshape(batch, mixture_width, height, width, channels)
    return _mix(images, chains, _weights(cuts))


def _rows(severity: int, height: int, width: int) -> list[operations.Operation]:
    """Every operation at `severity` magnitudes, with both signs."""
    strengths = magnitudes.bins(
        BINS,
        shear=0.3,
        translate=(width / 3.0, height / 3.0),
        degrees=30.0,
        enhance=0.9,
        bits=(4, 4),
    )
    allowed = {name: values[:severity] for name, values in strengths.items()}
    return operations.signed_rows(NAMES, allowed, min(severity, BINS))


def _weights(numbers: jax.Array) -> jax.Array:
    """Numbers in [0, 1) [B, K] -> weights [B, 1 + K] of the image and its K chains, int32.

    Their sum is `_STEPS` squared. The lengths between sorted uniform cuts are uniform on the
    simplex.
    """
    cuts = draws.choose(numbers, _STEPS + 1)
    share = cuts[:, :1]  # of all chains
    cuts = jnp.sort(cuts[:, 1:], axis=1)
    parts = jnp.diff(cuts, axis=1, prepend=0, append=_STEPS)
    return jnp.concatenate([_STEPS * (_STEPS - share), share * parts], axis=1)


def _mix(images: jax.Array, chains: jax.Array, weights: jax.Array) -> jax.Array:
    """uint8 [B, H, W, C] and [B, K, H, W, C] by weights [B, 1 + K] -> uint8 [B, H, W, C]."""
    weights = weights[..., None, None, None]
    mixed = weights[:, 0] * images + (weights[:, 1:] * chains).sum(axis=1)
    return ((mixed + _STEPS**2 // 2) // _STEPS**2).astype(jnp.uint8)
