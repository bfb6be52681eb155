"""The objects of a whole split in a few arrays, which are sent to worker processes quickly."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from kdjax.data.objects.annotations import AnnotatedImage


@dataclasses.dataclass(frozen=True)
class SplitObjects:
    """The M objects of N images.

    Attributes:
      sizes: `[N, 2]` int32, heights and widths of the images as they are stored.
      starts: `[N + 1]` int64: image i has the objects `starts[i]` to `starts[i + 1]`, exclusive.
      boxes: `[M, 4]` float32.
      labels: `[M]` int32, classes from 1 on.
      areas: `[M]` float32.
      ignored: `[M]` bool, see `AnnotatedImage`.
    """

    sizes: np.ndarray
    starts: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    ignored: np.ndarray

    @classmethod
    def joined(cls, images: Sequence[AnnotatedImage]) -> SplitObjects:
        """Joins the objects of one image or more."""
        counts = [len(image.labels) for image in images]
        return cls(
            np.array([(image.height, image.width) for image in images], np.int32),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            *(
                np.concatenate([getattr(image, name) for image in images])
                for name in ("boxes", "labels", "areas", "ignored")
            ),
        )

    def take(self, indices: np.ndarray) -> SplitObjects:
        """Selects the objects of some images, in the order of these."""
        counts = np.diff(self.starts)[indices]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        owners = np.repeat(np.arange(len(indices)), counts)
        rows = np.arange(starts[-1]) - starts[owners] + self.starts[indices][owners]
        return SplitObjects(
            self.sizes[indices],
            starts,
            *(array[rows] for array in (self.boxes, self.labels, self.areas, self.ignored)),
        )

    def of(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """'boxes' `[n, 4]`, 'labels' `[n]` and 'ignored' `[n]` of image `index`."""
        rows = slice(self.starts[index], self.starts[index + 1])
        return self.boxes[rows], self.labels[rows], self.ignored[rows]

    @property
    def owners(self) -> np.ndarray:
        """The number of the image of every object, `[M]`."""
        return np.repeat(np.arange(len(self.sizes)), np.diff(self.starts))

    @property
    def most(self) -> int:
        """The largest number of objects of an image that are not ignored; 1 at least."""
        learned = np.bincount(self.owners[~self.ignored], minlength=1)
        return max(1, int(learned.max()))
