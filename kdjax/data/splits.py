"""Data sets as sources return them: splits of arrays, or of records decoded one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from kdjax.data.objects.columns import SplitObjects

# The value of pixels without a class, which losses and measures leave out.
IGNORED = 255


class Images(Protocol):
    """Images or masks with random access; picklable, because worker processes receive a copy."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> np.ndarray:
        """Image `index`, uint8 [h, w, C]; h and w may differ from image to image."""


class Records(Images, Protocol):
    """Images whose common size may be known before they are decoded.

    Where only length and items are needed, an array uint8 [N, H, W, C] may take its place.
    """

    def common_shape(self) -> tuple[int, int, int] | None:
        """(H, W, C) if all images are known to have one size, else None."""


class MaskRecords(Images, Protocol):
    """Masks, uint8 [h, w], in files."""

    def where(self, index: int) -> str:
        """The file of a mask."""


class ArraySplit(NamedTuple):
    """A split whose images are in one array.

    Attributes:
      images: uint8 [N, H, W, C].
      labels: int32 [N], zeros where there are masks.
      masks: uint8 [N, H, W], the class of every pixel, or `IGNORED`; None for images with a class.
      sizes: int32 [N, 2], height and width of the images in the upper left corner of padded arrays
        with masks; None if there is no padding.
    """

    images: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None
    sizes: np.ndarray | None = None

    @property
    def objects(self) -> None:
        """None: images with objects, in boxes, are decoded one by one."""


class RecordSplit(NamedTuple):
    """A split whose images are decoded one by one.

    Attributes:
      records: N images.
      labels: int32 [N], zeros where there are masks or objects.
      masks: N masks, uint8 [h, w], or None.
      objects: the objects of the images, in boxes, or None. Their records have `where(index)`, the
        file of an image.
    """

    records: Records
    labels: np.ndarray
    masks: MaskRecords | None = None
    objects: SplitObjects | None = None


Split = ArraySplit | RecordSplit


class Source(NamedTuple):
    """A data set as it is stored, before any subset or resizing."""

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]


class SubsetRecords:
    """The records of `indices` only, in that order: images or masks."""

    def __init__(self, records: Images, indices: np.ndarray):
        self.records: Any = records  # may have further methods, which are called below
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.records[int(self.indices[index])]

    def common_shape(self) -> tuple[int, int, int] | None:
        """The common shape of all the records, or None, also for a subset of equal images."""
        return self.records.common_shape()

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of a record, for records that know it without decoding."""
        return self.records.size(int(self.indices[index]))

    def where(self, index: int) -> str:
        """The file of a record, for records that are files."""
        return self.records.where(int(self.indices[index]))


def select(split: Split, indices: np.ndarray) -> Split:
    """The images and labels at `indices` [M] of a split, in that order."""
    labels = split.labels[indices]
    if isinstance(split, ArraySplit):
        more = (None if array is None else array[indices] for array in (split.masks, split.sizes))
        return ArraySplit(split.images[indices], labels, *more)
    masks = None if split.masks is None else SubsetRecords(split.masks, indices)
    objects = None if split.objects is None else split.objects.take(indices)
    return RecordSplit(SubsetRecords(split.records, indices), labels, masks, objects)
