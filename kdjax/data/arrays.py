"""Data sets as NumPy files.

Either one FILE.npz with train_images, train_labels, test_images, test_labels, or a pair
NAME_train.npz and NAME_test.npz (or NAME_val.npz), each with `image` and `label`. Images are uint8
[N, H, W, C], labels integers [N] from 0 without gaps.
"""

import difflib
import zipfile
from pathlib import Path

import numpy as np

from kdjax.data.labels import check_no_class_missing, checked_labels
from kdjax.data.splits import ArraySplit, Source
from kdjax.errors import UserError

_KEYS = ("train_images", "train_labels", "test_images", "test_labels")


def open_arrays(file: str) -> Source:
    """Reads `arrays:FILE.npz`.

    Raises:
      UserError: missing or unreadable file, missing key or split, wrong dtype, shape or labels.
    """
    path = Path(file).expanduser()
    stored = _read(path)
    if set(_KEYS) <= stored.keys():
        train = _split(path, stored, "train_images", "train_labels")
        test = _split(path, stored, "test_images", "test_labels")
        test_path = path
    elif {"image", "label"} <= stored.keys():
        test_path = _test_file(path)
        train = _split(path, stored, "image", "label")
        test_stored = _read(test_path)
        if not {"image", "label"} <= test_stored.keys():
            raise UserError(
                f"{test_path}: holds {_listed(test_stored)}, needs image and label as {path} has"
            )
        test = _split(test_path, test_stored, "image", "label")
    else:
        raise UserError(
            f"{path}: holds {_listed(stored)}; needs {', '.join(_KEYS)}, or image and label in "
            "a pair of files NAME_train.npz and NAME_test.npz"
        )
    return _checked(path, test_path, train, test)


def _listed(stored: dict) -> str:
    return ", ".join(sorted(stored)) or "no arrays"


def _read(path: Path) -> dict[str, np.ndarray]:
    wanted = (*_KEYS, "image", "label")
    if not path.is_file():
        near = difflib.get_close_matches(
            path.name, [other.name for other in path.parent.glob("*.npz")], n=3
        )
        hint = f"; in that folder: {', '.join(near)}" if near else ""
        raise UserError(f"{path}: no such file; check config.data.source{hint}")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path}: not a readable .npz file; write it again with numpy.savez")
    try:
        with np.load(path, allow_pickle=False) as stored:
            # Keys that are not used keep their place in messages, but are not decompressed.
            return {key: stored[key] if key in wanted else None for key in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: not a readable .npz file ({error}); write it again with numpy.savez"
        ) from error


def _test_file(path: Path) -> Path:
    if path.stem.endswith("_train"):
        stem = path.stem.removesuffix("_train")
        candidates = [path.with_name(f"{stem}_{split}.npz") for split in ("test", "val")]
        for candidate in candidates:
            if candidate.is_file():
                return candidate
        raise UserError(
            f"{path}: no {candidates[0].name} or {candidates[1].name} beside it to evaluate on"
        )
    raise UserError(
        f"{path}: holds one split only; name the training file NAME_train.npz and put "
        "NAME_test.npz beside it"
    )


def _split(path: Path, stored: dict, image_key: str, label_key: str) -> ArraySplit:
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
    return ArraySplit(images, labels)


def _checked(path: Path, test_path: Path, train: ArraySplit, test: ArraySplit) -> Source:
    num_classes = int(train.labels.max(initial=-1)) + 1
    train_where, test_where = f"{path} (train)", f"{test_path} (test)"
    train = train._replace(labels=checked_labels(train.labels, num_classes, train_where))
    check_no_class_missing(train.labels, num_classes, train_where)
    test_classes = int(test.labels.max(initial=-1)) + 1
    if test_classes != num_classes and len(test.labels):
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
