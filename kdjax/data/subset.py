"""Subsets of a source: some of its classes, and some of their training images."""

from __future__ import annotations

import numpy as np
from ml_collections import ConfigDict

from kdjax.data.splits import Source, Split, select
from kdjax.errors import UserError


def subset(source: Source, data: ConfigDict) -> Source:
    """The classes that `data` selects, numbered from 0, and a part of their training images.

    Classes of images with masks or objects are not selected.

    Args:
      source: the whole source.
      data: `config.data`: source, first_class, classes, validation_fraction, train_fraction,
        subset_seed.

    Raises:
      UserError: the source does not have these classes, no image of them, or a class with too few
        images to hold one out.
    """
    classes = _selected_classes(len(source.class_names), data)
    train, test = source.train, source.test
    if _has_classes(train) and len(classes) < len(source.class_names):
        train, test = (_of_classes(split, classes) for split in (train, test))
        for name, split in (("training", train), ("test", test)):
            if not len(split.labels):
                raise UserError(
                    f"config.data.classes={data.classes}: no {name} image of these classes in "
                    f"{data.source}; use more classes"
                )
    if data.validation_fraction:
        train, test = _held_out(train, data)
    if data.train_fraction < 1:
        train = select(train, stratified(train.labels, data.train_fraction, data.subset_seed))
    return Source(source.name, train, test, source.class_names[classes.start : classes.stop])


def _has_classes(split: Split) -> bool:
    return split.masks is None and split.objects is None


def _held_out(train: Split, data: ConfigDict) -> tuple[Split, Split]:
    """Splits the training images into training images and held-out test images.

    Raises:
      UserError: no training image of a class would be left.
    """
    chosen = stratified(train.labels, data.validation_fraction, data.subset_seed)
    stays = np.ones(len(train.labels), bool)
    stays[chosen] = False
    if not np.isin(train.labels[chosen], train.labels[stays]).all():
        raise UserError(
            f"config.data.validation_fraction={data.validation_fraction}: no training image "
            f"of some class of {data.source} would stay; use a smaller part, or more images of it"
        )
    return select(train, np.flatnonzero(stays)), select(train, chosen)


def _selected_classes(total: int, data: ConfigDict) -> range:
    """The classes `first_class ... first_class + classes - 1` of a source of `total` classes."""
    first, count = data.first_class, data.classes
    if first and not 0 <= first <= total - 2:
        raise UserError(
            f"config.data.first_class={first}: must be 0..{total - 2}, which leaves two of the "
            f"{total} classes of {data.source}"
        )
    if count and not 2 <= count <= total - first:
        after = f" from class {first} on" if first else ""
        raise UserError(
            f"config.data.classes={count}: must be 0 (all) or 2..{total - first} for "
            f"{data.source}{after}"
        )
    return range(first, first + count if count else total)


def _of_classes(split: Split, classes: range) -> Split:
    """The images of consecutive classes, which are numbered from 0."""
    labels = split.labels
    inside = (labels >= classes.start) & (labels < classes.stop)
    chosen = select(split, np.flatnonzero(inside))
    return chosen._replace(labels=chosen.labels - labels.dtype.type(classes.start))


def stratified(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Sorted indices of `fraction` of every class (at least one image), drawn by `seed`.

    For one seed a smaller fraction is a subset of a larger one.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = np.maximum(1, np.round(counts * fraction)).astype(np.int64)
    return np.sort(by_class[rank < np.repeat(kept, counts)])
