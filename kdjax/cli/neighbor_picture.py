"""Test images beside the training images that a network takes to be nearest, as a picture."""

from __future__ import annotations

import numpy as np
from PIL import Image

from kdjax.cli.picture_sheet import COLUMNS, CaptionedPictures, sheet
from kdjax.data import ArraySplit, Dataset, RecordSplit, images
from kdjax.transfer.knn import nearest_neighbors

_GROUP = COLUMNS // 2  # a query and its neighbors


def neighbors(
    dataset: Dataset, queries: np.ndarray, bank: np.ndarray, limit: int
) -> Image.Image | None:
    """The picture of `rows`; None where `limit` leaves no place for a query.

    Args:
      dataset: of the images.
      queries: `[Q, D]` features of the test images.
      bank: `[M, D]` features of the training images.
      limit: how many images are drawn at most.
    """
    shown = rows(dataset, queries, bank, limit)
    return sheet(shown.pictures, shown.captions) if shown.captions else None


def rows(dataset: Dataset, queries: np.ndarray, bank: np.ndarray, limit: int) -> CaptionedPictures:
    """Test images from all over the split, each before its five nearest training images.

    Captions of training images have their classes and cosine similarities. Arguments are those of
    `neighbors`.
    """
    count = min(limit // _GROUP, len(queries))
    chosen = np.linspace(0, len(queries) - 1, count).astype(np.int64)
    near = min(_GROUP - 1, len(bank))
    similarities, indices = map(np.asarray, nearest_neighbors(queries[chosen], bank, near))
    pictures, captions = [], []
    for query, values, numbers in zip(chosen, similarities, indices, strict=True):
        pictures.append(picture_of(dataset.test, int(query), dataset.image_shape))
        captions.append(f"query: {dataset.class_names[dataset.test.labels[query]]}")
        for value, number in zip(values, numbers, strict=True):
            pictures.append(picture_of(dataset.train, int(number), dataset.image_shape))
            captions.append(f"{dataset.class_names[dataset.train.labels[number]]}\n{value:.2f}")
    stacked = np.stack(pictures) if pictures else np.zeros((0, *dataset.image_shape), np.uint8)
    return CaptionedPictures(stacked, captions, len(queries) * (1 + near))


def picture_of(
    split: ArraySplit | RecordSplit, index: int, shape: tuple[int, int, int]
) -> np.ndarray:
    """An image as uint8 `[H, W, C]`, the central square of one that is streamed."""
    pixels = split[0][index]
    return pixels if pixels.shape == shape else images.fit(pixels, shape[0])
