"""An episode of few labeled images, as a picture: a class in every row."""

from __future__ import annotations

import jax
import numpy as np
from jax.typing import ArrayLike
from PIL import Image

from kdjax.cli.neighbor_picture import picture_of
from kdjax.cli.picture_sheet import COLUMNS, CaptionedPictures, sheet
from kdjax.data import ArraySplit, Dataset, RecordSplit
from kdjax.transfer.prototypes import Episodes, prototype_predictions

_MOST_SHOTS = 4


def episode(
    dataset: Dataset, split: str, features: ArrayLike, episodes: Episodes, *, distance: str
) -> Image.Image:
    """The picture of `rows`."""
    shown = rows(dataset, split, features, episodes, distance=distance)
    return sheet(shown.pictures, shown.captions, len(shown.captions) // episodes.query.shape[1])


def rows(
    dataset: Dataset, split: str, features: ArrayLike, episodes: Episodes, *, distance: str
) -> CaptionedPictures:
    """The first episode: labeled images of a class, then queries of it with their predictions.

    Args:
      dataset: of the images.
      split: 'train' or 'test'.
      features: `[images, D]` of the split.
      episodes: E of them.
      distance: of `prototypes.FewShot`.
    """
    first = jax.tree.map(lambda x: x[:1], episodes)
    predicted = np.asarray(prototype_predictions(features, first, distance=distance)[0])
    support, query = (np.asarray(numbers[0]) for numbers in first)
    images: ArraySplit | RecordSplit = getattr(dataset, split)
    names = [dataset.class_names[images.labels[numbers[0]]] for numbers in support]
    shots = min(_MOST_SHOTS, support.shape[1])
    queries = min(COLUMNS - shots, query.shape[1])
    pictures, captions = [], []
    for place, name in enumerate(names):
        for number in [*support[place, :shots], *query[place, :queries]]:
            pictures.append(picture_of(images, int(number), dataset.image_shape))
        captions += [f"labeled: {name}"] * shots
        captions += [
            "right" if other == place else f"taken for {names[other]}"
            for other in predicted[place, :queries]
        ]
    return CaptionedPictures(np.stack(pictures), captions, support.size + query.size)
