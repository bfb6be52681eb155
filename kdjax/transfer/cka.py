"""Linear centered kernel alignment (Kornblith et al., ICML 2019, arXiv 1905.00414)."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

_LEAST_IMAGES = 4  # of the unbiased estimate


@functools.partial(jax.jit, static_argnames=("unbiased",))
def linear_cka(x: jax.Array, y: jax.Array, *, unbiased: bool = False) -> jax.Array:
    """Similarity of two representations of the same images.

    HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with K = X X^T and L = Y Y^T. It does not change when
    either is rotated or scaled. With linear kernels nothing of the size of K is needed: the cost
    is `O(N D E)`.

    Args:
      x: `[N, D]` features.
      y: `[N, E]` features.
      unbiased: whether HSIC is the unbiased estimate of Song et al. (JMLR 2012, theorem 2) in
        place of the biased one (Kornblith et al., equation 3), which is too large where there are
        few images for the number of features. It can be slightly negative.

    Returns:
      `[]` float32; 0 where the features of a side are constant, and have no direction.

    Raises:
      ValueError: other numbers of images, or fewer than 4 for the unbiased estimate.
    """
    if len(x) != len(y) or x.ndim != 2 or y.ndim != 2:
        raise ValueError(f"features must be [N, D] and [N, E], not {x.shape} and {y.shape}")
    if unbiased and len(x) < _LEAST_IMAGES:
        raise ValueError(f"the unbiased estimate needs {_LEAST_IMAGES} images, not {len(x)}")
    x, y = _centered(x), _centered(y)
    joint = _hsic(x, y, unbiased)
    product = jnp.maximum(_hsic(x, x, unbiased), 0) * jnp.maximum(_hsic(y, y, unbiased), 0)
    return jnp.where(product > 0, joint / jnp.sqrt(jnp.where(product > 0, product, 1)), 0)


def _centered(x: jax.Array) -> jax.Array:
    """Features of mean 0 whose squared lengths have the mean 1, so that no product overflows."""
    x = x.astype(jnp.float32)
    x = x - x.mean(0)
    square = jnp.mean(jnp.sum(jnp.square(x), axis=1))
    return jnp.where(square > 0, x / jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def _hsic(x: jax.Array, y: jax.Array, unbiased: bool) -> jax.Array:
    """HSIC of centered features, but for a factor that depends on their number alone."""
    cross = jnp.matmul(x.T, y, precision=jax.lax.Precision.HIGHEST) / len(x)
    total = jnp.sum(jnp.square(cross))  # tr(K L) / N^2
    if not unbiased:
        return total
    # The diagonals of K and L are left out. Rows of K sum to 0, so without its diagonal k they
    # sum to -k, and every term of the estimate is one of k and l.
    count = len(x)
    k, l = (jnp.sum(jnp.square(vectors), axis=1) for vectors in (x, y))  # noqa: E741
    diagonal = jnp.mean(k * l) / count
    means = jnp.mean(k) * jnp.mean(l) / ((count - 1) * (count - 2))
    return total - diagonal * (1 + 2 / (count - 2)) + means


def cka_matrix(features: Sequence[ArrayLike], *, unbiased: bool = False) -> np.ndarray:
    """`linear_cka` of all pairs of M representations of the same images.

    Args:
      features: M arrays `[N, D_i]`.
      unbiased: of `linear_cka`.

    Returns:
      `[M, M]` float32, symmetric.
    """
    count = len(features)
    matrix = np.zeros((count, count), np.float32)
    for row in range(count):
        for column in range(row, count):
            value = linear_cka(features[row], features[column], unbiased=unbiased)
            matrix[row, column] = matrix[column, row] = value
    return matrix
