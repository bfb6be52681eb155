"""Images of the same class and of others, drawn on the device."""

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
      place: `[images]` where an image is in `order`.
    """

    order: jax.Array
    start: jax.Array
    count: jax.Array  # type: ignore[assignment]  # of tuples it is a method
    place: jax.Array


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
    place = np.argsort(order)
    return ByClass(*(jnp.asarray(array, jnp.int32) for array in (order, start, count, place)))


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
    start, own_count = others.start[labels][:, None], others.count[labels][:, None]
    places = jax.random.randint(key, (len(labels), count), 0, others.order.shape[0] - own_count)
    places += jnp.where(places >= start, own_count, 0)  # over the image's own class
    return jnp.concatenate([index[:, None], others.order[places]], axis=1)


def draw_same(
    key: jax.Array, labels: jax.Array, index: jax.Array, classes: ByClass, *, count: int
) -> jax.Array:
    """`[B, count]`: numbers of other images of each image's class.

    All of them are equally likely, independently of each other. An image that is alone in its class
    is drawn itself.

    Args:
      key: random key.
      labels: `[B]` classes.
      index: `[B]` the images' own numbers.
      classes: see `by_class`.
      count: how many.
    """
    others = classes.count[labels][:, None] - 1
    places = classes.start[labels][:, None]
    places += jax.random.randint(key, (len(labels), count), 0, jnp.maximum(others, 1))
    places += jnp.where((places >= classes.place[index][:, None]) & (others > 0), 1, 0)
    return classes.order[places]


def draw_contrast(
    keys: jax.Array,
    labels: jax.Array,
    index: jax.Array,
    classes: ByClass,
    *,
    positives: int,
    negatives: int,
) -> jax.Array:
    """`[B, 1 + positives + negatives]`: each image, some of its class, some of other classes.

    Args:
      keys: `[B]` random keys, on which alone an image's draws depend.
      labels: `[B]` classes.
      index: `[B]` the images' own numbers.
      classes: see `by_class`.
      positives: number of `draw_same`.
      negatives: number of `draw`.
    """

    def one(key: jax.Array, label: jax.Array, number: jax.Array) -> jax.Array:
        same_key, other_key = jax.random.split(key)
        same = draw_same(same_key, label[None], number[None], classes, count=positives)[0]
        others = draw(other_key, label[None], number[None], classes, count=negatives)[0]
        return jnp.concatenate([others[:1], same, others[1:]])

    return jax.vmap(one)(keys, labels, index)
