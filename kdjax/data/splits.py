"""What the sources return and the rest of kdjax.data works on."""

from typing import NamedTuple, Protocol

import numpy as np


class Records(Protocol):
    """Images with random access; picklable, because worker processes receive a copy.

    An array uint8 [N, H, W, C] serves as well where only length and items are needed.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray:
        """Image `index`, uint8 [h, w, C]; h and w may differ from image to image."""

    def common_shape(self) -> tuple[int, int, int] | None:
        """(H, W, C) if all images are known to have one size, else None."""


class ArraySplit(NamedTuple):
    """A split that is held whole: images uint8 [N, H, W, C], labels int32 [N]."""

    images: np.ndarray
    labels: np.ndarray


class RecordSplit(NamedTuple):
    """A split whose images are decoded one by one: N records, labels int32 [N]."""

    records: Records
    labels: np.ndarray


class Source(NamedTuple):
    """A data set as it is stored, before any subset or resizing."""

    name: str
    train: ArraySplit | RecordSplit
    test: ArraySplit | RecordSplit
    class_names: tuple[str, ...]


class SubsetRecords:
    """The records of `indices` only, in that order."""

    def __init__(self, records: Records, indices: np.ndarray):
        self.records = records
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.records[int(self.indices[index])]

    def common_shape(self) -> tuple[int, int, int] | None:
        """As that of all the records: a subset of unequal images counts as unequal."""
        return self.records.common_shape()


def select(split: ArraySplit | RecordSplit, indices: np.ndarray) -> ArraySplit | RecordSplit:
    """The images and labels at `indices` [M] of a split, in that order."""
    labels = split.labels[indices]
    if isinstance(split, ArraySplit):
        return ArraySplit(split.images[indices], labels)
    return RecordSplit(SubsetRecords(split.records, indices), labels)
