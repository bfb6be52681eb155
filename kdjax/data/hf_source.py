"""Data sets of the Hugging Face library `datasets`, as `save_to_disk` writes them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kdjax.data import images
from kdjax.data.regular_files import expanded, is_directory, read_bytes
from kdjax.data.splits import RecordSplit, Source
from kdjax.errors import UserError

_HELD_OUT = ("test", "validation")


class HfRecords:
    """The images of one column, decoded to RGB on access.

    Args:
      rows: a `datasets.Dataset` of one column, of encoded images.
      column: its name.
      where: name of the rows in messages.
    """

    def __init__(self, rows: Any, column: str, where: str):
        self.rows = rows
        self.column = column
        self.where_rows = where

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> np.ndarray:
        return images.decode(self._encoded(index), where=f"{self.where_rows}, row {index}")

    def common_shape(self) -> tuple[int, int, int] | None:
        """(H, W, 3) if all images have one size, else None; their headers are read."""
        first = None
        for index in range(len(self)):
            height, width = self.size(index)
            first = first or (height, width, 3)
            if first != (height, width, 3):
                return None
        return first

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of an image, from its header."""
        return images.encoded_size(self._encoded(index), where=f"{self.where_rows}, row {index}")

    def _encoded(self, index: int) -> bytes:
        stored = self.rows[int(index)][self.column]
        if stored is None:
            raise UserError(f"{self.where_rows}, row {index}: has no image")
        return stored["bytes"] or read_bytes(Path(stored["path"]))


class Overview(NamedTuple):
    """What is known of a set without decoding its images.

    Attributes:
      train: the training images.
      classes: number of classes.
      has_test: whether there is a split to evaluate on.
    """

    train: HfRecords
    classes: int
    has_test: bool


def overview(root: Path) -> Overview | None:
    """The overview of the set in a folder; None where `open_hf` needs more than the folder.

    Raises:
      UserError: the folder holds no set of the library.
    """
    splits = _splits(root)
    if "train" not in splits:
        return None
    train = splits["train"]
    names = _column_names(train)
    if [len(columns) for columns in names] != [1, 1]:
        return None
    (image,), (label,) = names
    where = f"{root} (train)"
    _labels(train, label, where)  # refuses what are no labels
    records = _images(train, image, where)
    return Overview(records, len(_class_names(train, label)), any(n in splits for n in _HELD_OUT))


def open_hf(
    place: str, test_split: str = "", columns: tuple[str, ...] = (), *, split: bool = False
) -> Source:
    """Opens `hf:PATH`, a folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote.

    Args:
      place: the folder; `~` is the home directory.
      test_split: the split that is held out; '': 'test', otherwise 'validation'.
      columns: names of the columns of images and labels; (): the only columns of their kinds.
      split: whether test images will be split off the training images: then no test split is
        needed, and the test split is the training split.

    Raises:
      UserError: the library is missing, the folder holds no set of it, or the set has no such
        split or columns.
    """
    if importlib.util.find_spec("datasets") is None:
        raise UserError(
            f"config.data.source='hf:{place}' needs the package datasets: pip install 'kdjax[hf]'"
        )
    root = expanded(place)
    if not is_directory(root):
        raise UserError(f"{root}: no such folder; check config.data.source")
    splits = _splits(root)
    train = splits.get("train")
    if train is None:
        raise UserError(f"{root}: has no split 'train'; there are {', '.join(splits)}")
    names = [test_split] if test_split else [name for name in _HELD_OUT if name in splits]
    held_out = train if split and not test_split else splits.get(names[0]) if names else None
    if held_out is None:
        raise UserError(
            f"{root}: has no split {test_split or ' or '.join(_HELD_OUT)}; there are "
            f"{', '.join(splits)}: set config.data.test_split, or hold some out by "
            "config.data.validation_fraction=0.2"
        )
    image, label = _columns(train, columns, root)
    class_names = _class_names(train, label)
    learned, tested = (
        _split(rows, image, label, f"{root} ({rows.split})") for rows in (train, held_out)
    )
    return Source(root.absolute().name, learned, tested, class_names)


def _splits(root: Path) -> dict[str, Any]:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(root))
    except (OSError, ValueError, KeyError, TypeError) as error:
        line = " ".join(str(error).split())
        raise UserError(
            f"{root}: holds no set that save_to_disk wrote ({type(error).__name__}: {line})"
        ) from error
    return dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}


def _column_names(rows: Any) -> tuple[list[str], list[str]]:
    """The names of all columns of images, and of all of labels."""
    import datasets

    image_columns, label_columns = (
        [name for name, feature in rows.features.items() if isinstance(feature, kind)]
        for kind in (datasets.Image, datasets.ClassLabel)
    )
    if not label_columns and "label" in rows.features:
        label_columns = ["label"]
    return image_columns, label_columns


def _columns(rows: Any, given: tuple[str, ...], root: Path) -> tuple[str, str]:
    """The names of the column of images and of that of labels."""
    image_columns, label_columns = _column_names(rows)
    if given:
        missing = [name for name in given if name not in rows.features]
        if len(given) != 2 or missing or given[0] not in image_columns:
            raise UserError(
                f"{root}: config.data.columns={tuple(given)}: give the names of a column of images "
                f"and of one of labels; there are {', '.join(rows.features)}"
            )
        return given[0], given[1]
    if (len(image_columns), len(label_columns)) != (1, 1):
        raise UserError(
            f"{root}: columns of images: {', '.join(image_columns) or 'none'}, of labels: "
            f"{', '.join(label_columns) or 'none'}; name one of each by config.data.columns"
        )
    return image_columns[0], label_columns[0]


def _class_names(rows: Any, label: str) -> tuple[str, ...]:
    names = getattr(rows.features[label], "names", None)
    if names:
        return tuple(names)
    return tuple(map(str, range(int(max(rows[label], default=-1)) + 1)))


def _images(rows: Any, image: str, where: str) -> HfRecords:
    import datasets

    encoded = rows.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    return HfRecords(encoded, image, where)


def _labels(rows: Any, label: str, where: str) -> np.ndarray:
    labels = np.asarray(rows[label][:])
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{where}: column {label!r} has no whole numbers as labels")
    return labels.astype(np.int32)


def _split(rows: Any, image: str, label: str, where: str) -> RecordSplit:
    return RecordSplit(_images(rows, image, where), _labels(rows, label, where))
