"""Images of other classes, drawn on the device."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.errors import UserError


class ByClass(NamedTuple):
    """The images of a training split, class by class.

    Attributes:
      order: `[images]` image numbers; those of a class are next to each other.
      start: `[classes]` where a class begins in `order`.
      count: `[classes]` its number of images.
    """

    order: jax.Array
    start: jax.Array
    count: jax.Array


def by_class(labels: np.ndarray) -> ByClass:
    """The images of labels `[images]`.

    Raises:
      UserError: there are no two classes.
    """
    count = np.bincount(labels)
    if len(labels) == count.max():
        raise UserError("config.data: there are no images of other classes to contrast with")
    order = np.argsort(labels, kind="stable")
    start = np.cumsum(count) - count
    return ByClass(*(jnp.asarray(each, jnp.int32) for each in (order, start, count)))


def draw(
    key: jax.Array, labels: jax.Array, index: jax.Array, others: ByClass, *, count: int
) -> jax.Array:
    """`[B, 1 + count]`: each image's own number, then numbers of images of other classes.

    All images of other classes are equally likely, independently of each other; one may come twice.

    Args:
      key: random key.
      labels: `[B]` classes.
      index: `[B]` the images' own numbers.
      others: see `by_class`.
      count: how many of other classes.
    """
    start, own = others.start[labels][:, None], others.count[labels][:, None]
    places = jax.random.randint(key, (len(labels), count), 0, others.order.shape[0] - own)
    places += jnp.where(places >= start, own, 0)  # over the image's own class
    return jnp.concatenate([index[:, None], others.order[places]], axis=1)
