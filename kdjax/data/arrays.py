"""Data sets as NumPy files.

Either one FILE.npz with train_images, train_labels, test_images, test_labels, or a pair
NAME_train.npz and NAME_test.npz (or NAME_val.npz), each with `image` and `label`. Images are uint8
[N, H, W, C] (or [N, C, H, W] by `config.data.layout`), labels integers [N] from 0 without
gaps.

With masks, the classes of pixels, in place of labels: train_masks and test_masks, or `mask`, uint8
[N, H, W]. A class is a value other than `config.data.ignored`; `class_names` [classes] may name
them.
"""

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kdjax.data.labels import check_no_class_missing, checked_labels, class_count
from kdjax.data.masks import class_table, translated
from kdjax.data.npz_members import read_members
from kdjax.data.regular_files import exists, expanded, is_directory, is_regular, sorted_entries
from kdjax.data.splits import IGNORED, ArraySplit, Source
from kdjax.errors import UserError

LAYOUTS = ("", "NHWC", "NCHW")
_KEYS = ("train_images", "train_labels", "test_images", "test_labels")
_PAIR_KEYS = ("image", "label")
_MASK_KEYS = ("train_images", "train_masks", "test_images", "test_masks")
_MASK_PAIR_KEYS = ("image", "mask")
_NAMES = "class_names"
_USUAL_CHANNELS = (1, 3, 4)
# The arrays of a file by name; None for arrays that are not read.
Stored = Mapping[str, Any]


def open_arrays(
    file: str, layout: str = "", ignored: int = IGNORED, test_split: str = ""
) -> Source:
    """Reads `arrays:FILE.npz`.

    Args:
      file: path; `~` is the home directory.
      layout: 'NHWC' or 'NCHW'; '' is NHWC, where shapes that look like NCHW are refused.
      ignored: value of ignored pixels in masks.
      test_split: the file of a pair to evaluate on, 'test' or 'val'; '': test, otherwise val.

    Raises:
      UserError: missing or unreadable file, missing key or split, wrong dtype, shape or labels.
    """
    if layout not in LAYOUTS:
        raise UserError(f"config.data.layout={layout!r} is unknown; use 'NHWC' or 'NCHW'")
    path = expanded(file)
    stored = _read(path)
    if {"mask", "train_masks"} & stored.keys():
        return _open_masks(path, stored, layout, ignored, test_split)
    if ignored != IGNORED:
        raise UserError(f"config.data.ignored={ignored} is of masks, which {path} does not hold")
    test_path, train, test = _splits(path, stored, (_KEYS, _PAIR_KEYS), _split, layout, test_split)
    return _checked(path, test_path, train, test)


def _splits(
    path: Path,
    stored: Stored,
    either: tuple[tuple[str, ...], tuple[str, ...]],
    make: Callable[..., ArraySplit],
    layout: str,
    test_split: str,
) -> tuple[Path, ArraySplit, ArraySplit]:
    """The test split's file and both splits, by the keys of one file or of a pair.

    Raises:
      UserError: neither all keys of one file nor all of a pair are there.
    """
    keys, pair_keys = either
    if set(keys) <= stored.keys() and test_split:
        raise UserError(
            f"config.data.test_split={test_split!r}: {path} holds both splits; leave it at ''"
        )
    if set(keys) <= stored.keys():
        train, test = (make(path, stored, *part, layout) for part in (keys[:2], keys[2:]))
        return path, train, test
    names = " and ".join(pair_keys)
    if not set(pair_keys) <= stored.keys():
        raise UserError(
            f"{path}: holds {_listed(stored)}; needs {', '.join(keys)}, or {names} in "
            "a pair of files NAME_train.npz and NAME_test.npz"
        )
    test_path = _test_file(path, test_split)
    train = make(path, stored, *pair_keys, layout)
    test_stored = _read(test_path)
    if not set(pair_keys) <= test_stored.keys():
        raise UserError(f"{test_path}: holds {_listed(test_stored)}, needs {names} as {path} has")
    return test_path, train, make(test_path, test_stored, *pair_keys, layout)


def _listed(stored: Stored) -> str:
    return ", ".join(sorted(stored)) or "no arrays"


def _read(path: Path) -> Stored:
    if not exists(path):
        others = sorted_entries(path.parent) if is_directory(path.parent) else []
        names = [other.name for other in others if other.suffix == ".npz"]
        near = difflib.get_close_matches(path.name, names, n=3)
        hint = f"; in that folder: {', '.join(near)}" if near else ""
        raise UserError(f"{path}: no such file; check config.data.source{hint}")
    names_to_read = {*_KEYS, *_PAIR_KEYS, *_MASK_KEYS, *_MASK_PAIR_KEYS, _NAMES}
    return read_members(path, names_to_read)


def _test_file(path: Path, test_split: str) -> Path:
    splits = (test_split,) if test_split else ("test", "val")
    if path.stem.endswith("_train"):
        stem = path.stem.removesuffix("_train")
        candidates = [path.with_name(f"{stem}_{split}.npz") for split in splits]
        for candidate in candidates:
            if is_regular(candidate):
                return candidate
        raise UserError(
            f"{path}: no {' or '.join(file.name for file in candidates)} beside it to evaluate on"
        )
    raise UserError(
        f"{path}: holds one split only; name the training file NAME_train.npz and put "
        "NAME_test.npz beside it"
    )


def _open_masks(path: Path, stored: Stored, layout: str, ignored: int, test_split: str) -> Source:
    test_path, train, test = _splits(
        path, stored, (_MASK_KEYS, _MASK_PAIR_KEYS), _masked_split, layout, test_split
    )
    if test.images.shape[-1] != train.images.shape[-1]:
        raise UserError(
            f"{test_path}: test images have {test.images.shape[-1]} channels, train images "
            f"{train.images.shape[-1]}"
        )
    names = _class_names(path, stored, np.asarray(train.masks), ignored)
    table = class_table(len(names), ignored)
    train, test = (
        split._replace(masks=translated(np.asarray(split.masks), table, f"{where} ({name})"))
        for split, where, name in ((train, path, "train"), (test, test_path, "test"))
    )
    return Source(path.stem.removesuffix("_train"), train, test, names)


def _class_names(path: Path, stored: Stored, masks: np.ndarray, ignored: int) -> tuple[str, ...]:
    if _NAMES in stored:
        names = tuple(map(str, np.ravel(stored[_NAMES])))
    else:
        values = np.flatnonzero(np.bincount(masks.ravel(), minlength=256))
        values = values[values != ignored]
        names = tuple(map(str, range(int(values.max(initial=0)) + 1)))
    if not 2 <= len(names) <= 255 or len(set(names)) < len(names) or 0 <= ignored < len(names):
        raise UserError(
            f"{path}: {len(names)} classes with config.data.ignored={ignored}; needs 2 to 255, "
            "named differently, and an ignored value that is none of them"
        )
    return names


def _masked_split(
    path: Path, stored: Stored, image_key: str, mask_key: str, layout: str
) -> ArraySplit:
    masks = stored[mask_key]
    if masks.dtype != np.uint8 or masks.ndim != 3:
        raise UserError(
            f"{path}: {mask_key} is {masks.dtype} {list(masks.shape)}, needs uint8 [N, H, W]"
        )
    labels = {"label": np.zeros(len(masks), np.int32)}
    split = _split(path, {image_key: stored[image_key]} | labels, image_key, "label", layout)
    if split.images.shape[1:3] != masks.shape[1:]:
        raise UserError(
            f"{path}: {mask_key} {list(masks.shape)} are masks of another size than the images "
            f"{list(split.images.shape)}; make them as large"
        )
    return split._replace(masks=masks)


def _split(path: Path, stored: Stored, image_key: str, label_key: str, layout: str) -> ArraySplit:
    images, labels = stored[image_key], stored[label_key]
    if images.dtype != np.uint8 or images.ndim != 4:
        raise UserError(
            f"{path}: {image_key} is {images.dtype} {list(images.shape)}, needs uint8 [N, H, W, C]"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise UserError(
            f"{path}: {label_key} is {labels.dtype} {list(labels.shape)}, needs integers [N]"
        )
    if len(images) != len(labels):
        raise UserError(
            f"{path}: {len(images)} images in {image_key} but {len(labels)} labels in {label_key}; "
            "they must be as many"
        )
    if 0 in images.shape[1:]:
        raise UserError(f"{path}: {image_key} {list(images.shape)} has no pixels")
    return ArraySplit(channels_last(images, layout, f"{path}: {image_key}"), labels)


def channels_last(images: np.ndarray, layout: str, where: str) -> np.ndarray:
    """Images of a layout as [N, H, W, C].

    Args:
      images: [N, H, W, C], or [N, C, H, W].
      layout: one of `LAYOUTS`.
      where: file and array, the start of the message.

    Raises:
      UserError: no layout is given, and the images look like [N, C, H, W].
    """
    if layout == "NCHW":
        return np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    if not layout and _looks_channels_first(images.shape):
        raise UserError(
            f"{where} {list(images.shape)} seems to be [N, C, H, W], needs [N, H, W, C]; set "
            "config.data.layout='NCHW' (or 'NHWC', if its last axis is that of the channels)"
        )
    return images


def _looks_channels_first(shape: tuple[int, ...]) -> bool:
    """Whether the shape is that of usual images only as [N, C, H, W]."""
    _, second, third, last = shape
    if last in _USUAL_CHANNELS:
        return False
    return second in _USUAL_CHANNELS or (third == last != second)


def _checked(path: Path, test_path: Path, train: ArraySplit, test: ArraySplit) -> Source:
    train_where, test_where = f"{path} (train)", f"{test_path} (test)"
    num_classes = class_count(train.labels, train_where)
    train = train._replace(labels=checked_labels(train.labels, num_classes, train_where))
    check_no_class_missing(train.labels, num_classes, train_where)
    test_classes = class_count(test.labels, test_where)
    if test_classes != num_classes:
        raise UserError(
            f"{test_path} has {test_classes} classes in its test split but {num_classes} in the "
            "train split; both must have the same"
        )
    test = test._replace(labels=checked_labels(test.labels, num_classes, test_where))
    if test.images.shape[1:] != train.images.shape[1:]:
        raise UserError(
            f"{test_path}: test images are {list(test.images.shape[1:])} but train images are "
            f"{list(train.images.shape[1:])}; resize them to one size"
        )
    name = path.stem.removesuffix("_train")
    return Source(name, train, test, tuple(str(label) for label in range(num_classes)))
