"""Mixing the images of a batch with one another, and the labels with them: mixup and CutMix.

Sources: mixup, Zhang et al., ICLR 2018, arXiv 1710.09412; CutMix, Yun et al., ICCV 2019, arXiv
1905.04899; manifold mixup, Verma et al., ICML 2019, arXiv 1806.05236. Checked against
`methods/mixup.py`, `methods/cutmix.py` and `methods/manifold_mixup.py` of Self-KD-Lib.

All of a batch are mixed by one `Mixture`: one lambda, and a permutation of the images.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdjax.losses.classes import labels_of
from kdjax.losses.distillation import cross_entropy
from kdjax.numerics import at_least_float32


class Mixture(NamedTuple):
    """Which images are mixed, and in what shares.

    Attributes:
      lam: `[]` in [0, 1] (lambda), the share of image b itself, and of its label; that of its
        partner is `1 - lam`.
      order: `[B]` a permutation: the partner of image b is image `order[b]`.
    """

    lam: jax.Array
    order: jax.Array


def draw_mixture(key: jax.Array, count: int, *, alpha: float) -> Mixture:
    """Draws `lambda ~ Beta(alpha, alpha)` and partners.

    Source: Zhang et al., ICLR 2018, arXiv 1710.09412, section 2; as `mixup_data` of Self-KD-Lib.

    Args:
      key: a random key.
      count: B, the number of images.
      alpha: > 0. The smaller, the nearer to 0 or 1 is lambda; 1 is the uniform distribution.

    Returns:
      A `Mixture` of lam `[]` and order `[B]`.

    Raises:
      ValueError: alpha is not positive.
    """
    if alpha <= 0:
        raise ValueError(f"alpha={alpha} must be positive: lambda is drawn from Beta(alpha, alpha)")
    lam_key, order_key = jax.random.split(key)
    return Mixture(jax.random.beta(lam_key, alpha, alpha), jax.random.permutation(order_key, count))


def mix(x: jax.Array, mixture: Mixture) -> jax.Array:
    """`lam * x[b] + (1 - lam) * x[order[b]]`: images, feature maps, logits.

    Source: Zhang et al., ICLR 2018, arXiv 1710.09412, equation 1; of feature maps, Verma et al.,
    ICML 2019, arXiv 1806.05236, equation 1.

    Args:
      x: `[B, ...]`.
      mixture: of B images.

    Returns:
      `[B, ...]` in the dtype of `x` (float32 for integers), computed in float32 at least.

    Raises:
      ValueError: a mixture of another number of images.
    """
    wide = at_least_float32(x)
    _check(mixture, wide.shape[0])

    def share(
        weight: jax.Array, values: jax.Array
    ) -> jax.Array:  # infinite logits of which there is nothing count 0
        return weight * jnp.where((weight == 0) & jnp.isinf(values), 0.0, values)

    mixed = share(mixture.lam, wide) + share(1 - mixture.lam, wide[mixture.order])
    return mixed.astype(jnp.result_type(x, 1.0))


def draw_box(key: jax.Array, lam: jax.Array, size: Sequence[int]) -> jax.Array:
    """`cutmix_box` around a pixel drawn uniformly.

    Source: Yun et al., ICCV 2019, arXiv 1905.04899, equation 2.

    Args:
      key: a random key.
      lam: `[]` in [0, 1].
      size: (H, W) of the images.

    Returns:
      `[4]`.
    """
    return cutmix_box(jax.random.randint(key, (2,), 0, jnp.array(size)), lam, size)


def cutmix_box(center: jax.Array, lam: jax.Array, size: Sequence[int]) -> jax.Array:
    """The box of an image that its partner fills: about `1 - lam` of it, cut off at the borders.

    Its sides are `2 * (floor(side * sqrt(1 - lam)) // 2)` pixels before it is cut off. Source:
    Yun et al., ICCV 2019, arXiv 1905.04899, equation 2; `rand_bbox` of the official code and of
    Self-KD-Lib.

    Args:
      center: `[2]` integers, row and column of a pixel.
      lam: `[]` in [0, 1].
      size: (H, W) of the images.

    Returns:
      `[4]` int32 (x1, y1, x2, y2): the rows x1 to x2 and columns y1 to y2, x2 and y2 not included.
    """
    sides = jnp.array(size)
    half = (sides * jnp.sqrt(1 - lam)).astype(jnp.int32) // 2
    first = jnp.clip(center - half, 0, sides)
    last = jnp.clip(center + half, 0, sides)
    return jnp.concatenate([first, last]).astype(jnp.int32)


def cutmix(images: jax.Array, mixture: Mixture, box: jax.Array) -> tuple[jax.Array, Mixture]:
    """Fills a box of every image with that of its partner.

    Source: Yun et al., ICCV 2019, arXiv 1905.04899, equation 1; checked against
    `methods/cutmix.py` of Self-KD-Lib.

    Args:
      images: `[B, H, W, C]`.
      mixture: of B images.
      box: `[4]` of `cutmix_box`, the same for all.

    Returns:
      Images `[B, H, W, C]`, and the mixture with the share of the pixels that an image keeps as its
      lambda.
    """
    height, width = images.shape[1:3]
    x1, y1, x2, y2 = box
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    inside = (x1 <= rows) & (rows < x2) & (y1 <= columns) & (columns < y2)
    mixed = jnp.where(inside[..., None], jnp.asarray(images)[mixture.order], images)
    share = inside.mean(dtype=jnp.result_type(mixture.lam, jnp.float32))
    return mixed, mixture._replace(lam=1 - share)


def mixed_cross_entropy(logits: jax.Array, labels: jax.Array, mixture: Mixture) -> jax.Array:
    """`lam CE(logits, y) + (1 - lam) CE(logits, y of the partner)`.

    Source: Zhang et al., ICLR 2018, arXiv 1710.09412, equation 1, and Yun et al., ICCV 2019, arXiv
    1905.04899, equation 1; checked against `methods/mixup.py` and `methods/cutmix.py` of
    Self-KD-Lib.

    Args:
      logits: `[B, ..., N]` of the mixed images.
      labels: `[B, ...]` integer classes of the images before they were mixed.
      mixture: how they were mixed.

    Returns:
      `[B, ...]`, in nats.

    Raises:
      ValueError: labels, or a mixture, of another shape.

    >>> logits = jnp.log(jnp.array([[0.5, 0.5], [0.9, 0.1]]))
    >>> mixture = Mixture(jnp.array(0.75), jnp.array([1, 0]))
    >>> print(mixed_cross_entropy(logits, jnp.array([0, 1]), mixture))
    [0.693... 1.753...]
    """
    labels = labels_of(logits, labels)
    _check(mixture, labels.shape[0])
    original = cross_entropy(logits, labels)
    partners = cross_entropy(logits, labels[mixture.order])
    return mixture.lam * original + (1 - mixture.lam) * partners


def _check(mixture: Mixture, count: int) -> None:
    """Raises ValueError unless the mixture is one lambda and a permutation of `count` images."""
    if jnp.shape(mixture.lam) or jnp.shape(mixture.order) != (count,):
        raise ValueError(
            f"a mixture of {count} images has lam [] and order [{count}], got shapes "
            f"{jnp.shape(mixture.lam)} and {jnp.shape(mixture.order)}"
        )
