"""Checks of labels: int32, 0 .. num_classes - 1, no class missing."""

import numpy as np

from kdjax.errors import UserError

_WAY_OUT = (
    "number the classes of both splits from 0 without gaps and leave out images without a label"
)


def class_count(labels: np.ndarray, where: str) -> int:
    """The number of classes, for labels from 0 without gaps: the largest label + 1.

    Args:
      labels: integers [N] of any width and byte order.
      where: the file or split that error messages name.

    Raises:
      UserError: there are no labels, or the largest would make more classes than there are images.
    """
    _check_any(labels, where)
    largest = int(labels.max())
    if largest >= len(labels):
        raise UserError(
            f"{where}: label {largest} makes {largest + 1} classes of {len(labels)} images, some "
            f"of them without any; {_WAY_OUT}"
        )
    return largest + 1


def check_labels(labels: np.ndarray, num_classes: int, where: str) -> None:
    """Checks that a split has labels, and that each is one of the classes.

    Args:
      labels: integers [N] of any width and byte order.
      num_classes: the number of classes.
      where: the file or split that error messages name.

    Raises:
      UserError: a label is out of range or the split has no labels.
    """
    _check_any(labels, where)
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        wrong = low if low < 0 else high
        raise UserError(f"{where}: label {wrong} is outside 0..{num_classes - 1}; {_WAY_OUT}")


def checked_labels(labels: np.ndarray, num_classes: int, where: str) -> np.ndarray:
    """Labels as int32 [N], after `check_labels`.

    Raises:
      UserError: as `check_labels`.
    """
    check_labels(labels, num_classes, where)
    return labels.astype(np.int32)


def _check_any(labels: np.ndarray, where: str) -> None:
    if not len(labels):
        raise UserError(f"{where}: no images; check config.data.source")


def check_no_class_missing(labels: np.ndarray, num_classes: int, where: str) -> None:
    """Checks that every class has an image.

    Args:
      labels: integers [N] in 0 .. num_classes - 1.
      num_classes: the number of classes.
      where: the file or split that error messages name.

    Raises:
      UserError: one of the classes 0 .. num_classes - 1 has no image in `labels`.
    """
    missing = np.flatnonzero(np.bincount(labels, minlength=num_classes) == 0)
    if len(missing):
        raise UserError(
            f"{where}: {len(missing)} of {num_classes} classes have no image (first: class "
            f"{missing[0]}); number the classes from 0 without gaps"
        )
