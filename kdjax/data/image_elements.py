"""Elements of streamed batches: the pixels, the label and the number of one image."""

from collections.abc import Callable

import numpy as np

from kdjax.data import images
from kdjax.data.decoding import Item
from kdjax.data.splits import RecordSplit

Crop = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


class FittedImage:
    """(image number, place) -> {'image', 'label', 'index'}, the central square."""

    def __init__(self, split: RecordSplit, image_size: int):
        self.split = split
        self.image_size = image_size

    def __call__(self, number_and_place: np.ndarray) -> Item:
        index, _ = map(int, number_and_place)
        pixels = images.fit(self.split.records[index], self.image_size)
        return _element(pixels, self.split.labels[index], index)


class CroppedImage:
    """(image number, place) -> {'image', 'label', 'index'}, cropped at random."""

    def __init__(
        self, split: RecordSplit, crop: Crop, image_size: int, views: int, seed: tuple[int, int]
    ):
        self.split = split
        self.crop = crop
        self.image_size = image_size
        self.views = views
        self.seed = seed

    def __call__(self, number_and_place: np.ndarray) -> Item:
        index, place = map(int, number_and_place)
        pixels = self.split.records[index]
        rng = np.random.default_rng([*self.seed, place])
        # The first is the one that there would be without the others.
        crops = [self.crop(pixels, self.image_size, rng) for _ in range(self.views)]
        views = np.stack(crops) if self.views > 1 else crops[0]
        return _element(views, self.split.labels[index], index)


class EvaluationImage:
    """Image number -> {'image', 'label', 'index'}, central crop."""

    def __init__(self, split: RecordSplit, image_size: int, crop_fraction: float):
        self.split = split
        self.image_size = image_size
        self.crop_fraction = crop_fraction

    def __call__(self, index: int) -> Item:
        index = int(index)
        pixels = self.split.records[index]
        pixels = images.fit_evaluation(pixels, self.image_size, self.crop_fraction)
        return _element(pixels, self.split.labels[index], index)


def _element(pixels: np.ndarray, label: int, index: int) -> Item:
    return {"image": pixels, "label": np.int32(label), "index": np.int32(index)}
