"""Few-shot episodes, classified by the nearest prototype (Snell et al., arXiv 1703.05175)."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from kdjax.errors import UserError
from kdjax.numerics import unit
from kdjax.settings import setting

_AT_ONCE = 64  # episodes


@dataclasses.dataclass(frozen=True)
class FewShot:
    """`config.few_shot`: the episodes of `--job=few-shot`."""

    ways: int = setting(5, "classes of an episode", at_least=2)
    shots: int = setting(1, "labeled images of each class", at_least=1)
    queries: int = setting(15, "images of each class that are to be classified", at_least=1)
    episodes: int = setting(600, "number of episodes", at_least=2)
    distance: str = setting(
        "cosine",
        "to the prototypes; 'cosine' divides features by their lengths first",
        choices=("cosine", "euclidean"),
    )


class Members(NamedTuple):
    """The images of every class.

    Attributes:
      images: int32 `[N, M]`, image numbers; rows of classes with fewer than M images go on with 0.
      counts: int32 `[N]`, how many images each class has.
    """

    images: np.ndarray
    counts: np.ndarray


class Episodes(NamedTuple):
    """E episodes as image numbers.

    Attributes:
      support: int32 `[E, W, K]`, the labeled images.
      query: int32 `[E, W, Q]`, the images to be classified; none is in the support.
    """

    support: jax.Array
    query: jax.Array


def members_of(labels: np.ndarray, num_classes: int) -> Members:
    """The images of every class, from the labels `[images]` of a split."""
    counts = np.bincount(labels, minlength=num_classes)
    images = np.zeros((num_classes, counts.max()), np.int32)
    for label in range(num_classes):
        images[label, : counts[label]] = np.flatnonzero(labels == label)
    return Members(images, counts.astype(np.int32))


def check_episodes(members: Members, settings: FewShot, class_names: Sequence[str]) -> None:
    """Checks that a split has the classes and the images that episodes need.

    Raises:
      UserError: fewer classes than ways, or a class with fewer images than shots and queries.
    """
    classes = len(members.counts)
    if settings.ways > classes:
        raise UserError(
            f"config.few_shot.ways={settings.ways}: the data has {classes} classes; set it to "
            f"2..{classes}, or choose more classes by config.data.classes"
        )
    needed, smallest = settings.shots + settings.queries, int(members.counts.argmin())
    if members.counts[smallest] < needed:
        raise UserError(
            f"config.few_shot.shots={settings.shots} and queries={settings.queries} need {needed} "
            f"images of every class, class {class_names[smallest]!r} has "
            f"{members.counts[smallest]}; set fewer"
        )


@functools.partial(jax.jit, static_argnames=("episodes", "ways", "shots", "queries"))
def draw_episodes(
    key: jax.Array, members: Members, *, episodes: int, ways: int, shots: int, queries: int
) -> Episodes:
    """Episodes of different classes, and of different images of each class, drawn uniformly.

    Episode e depends on `key` and e alone.

    Args:
      key: a key of `jax.random`.
      members: every class has at least `shots + queries` images.
      episodes, ways, shots, queries: of `FewShot`.

    Returns:
      E episodes; the order of an episode's classes is random.
    """
    images, counts = (jnp.asarray(array) for array in members)
    classes, most = images.shape

    def draw(number: jax.Array) -> Episodes:
        class_key, image_key = jax.random.split(jax.random.fold_in(key, number))
        chosen = jax.random.permutation(class_key, classes)[:ways]
        ranks = jax.random.uniform(image_key, (ways, most))
        ranks = jnp.where(jnp.arange(most) < counts[chosen][:, None], ranks, -1.0)
        _, places = jax.lax.top_k(ranks, shots + queries)
        drawn = jnp.take_along_axis(images[chosen], places, axis=1)
        return Episodes(drawn[:, :shots], drawn[:, shots:])

    return jax.lax.map(draw, jnp.arange(episodes), batch_size=_AT_ONCE)


@functools.partial(jax.jit, static_argnames=("distance",))
def prototype_predictions(
    features: jax.Array, episodes: Episodes, *, distance: str = "cosine"
) -> jax.Array:
    """The class of every query, by the nearest prototype.

    A class's prototype is the mean of its support's features (Snell et al., equation 1), and a
    query belongs to the class with the nearest one.

    Args:
      features: `[images, D]`.
      episodes: E of them, of W classes and Q queries of each.
      distance: 'euclidean', or 'cosine' of features that are divided by their lengths first.

    Returns:
      `[E, W, Q]` int32, places of classes in their episode; query `[e, w, q]` is of class w.
    """
    cosine = distance == "cosine"
    features = jnp.asarray(features, jnp.float32)
    features = unit(features) if cosine else features - features.mean(0)

    def predictions(episode: Episodes) -> jax.Array:
        prototypes = features[episode.support].mean(1)  # [W, D]
        prototypes = unit(prototypes) if cosine else prototypes
        scores = jnp.einsum(
            "wqd,vd->wqv", features[episode.query], prototypes, precision=jax.lax.Precision.HIGHEST
        )
        if not cosine:  # |q - p|^2 = |q|^2 - 2 q p + |p|^2, of which |q|^2 decides nothing
            scores = 2 * scores - jnp.sum(jnp.square(prototypes), axis=-1)
        return scores.argmax(-1).astype(jnp.int32)

    return jax.lax.map(predictions, episodes, batch_size=_AT_ONCE)


def prototype_accuracies(
    features: ArrayLike, episodes: Episodes, *, distance: str = "cosine"
) -> jax.Array:
    """The share of queries of every episode that `prototype_predictions` gives their class.

    Arguments are those of `prototype_predictions`.

    Returns:
      `[E]` float32, in 0..1.
    """
    predicted = prototype_predictions(features, episodes, distance=distance)
    truth = jnp.arange(predicted.shape[1])[:, None]
    return jnp.mean(predicted == truth, axis=(1, 2), dtype=jnp.float32)


def mean_and_interval(accuracies: ArrayLike) -> tuple[float, float]:
    """The mean over episodes, and half the width of its 95 % interval.

    The half width is 1.96 standard errors, as for the normal distribution.

    Args:
      accuracies: `[E]`, E of 2 or more.
    """
    values = np.asarray(accuracies, np.float64)
    return float(values.mean()), float(1.96 * values.std(ddof=1) / math.sqrt(len(values)))
