"""Image folders: PATH/train/CLASS/*.jpg, and PATH/test or PATH/val with the same classes.

Classes are the sorted names of the class folders. Hidden files and files without the extension of
an image are skipped.
"""

from pathlib import Path

import numpy as np

from kdjax.data import images
from kdjax.data.regular_files import (
    check_regular,
    expanded,
    is_directory,
    read_bytes,
    sorted_entries,
)
from kdjax.data.splits import RecordSplit, Source
from kdjax.errors import UserError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
_HELD_OUT = ("test", "val")


class FolderRecords:
    """Image files below `root`, decoded to RGB on access."""

    def __init__(self, root: Path, files: list[str]):
        self.root = root
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray:
        path = self.root / self.files[index]
        return images.decode(read_bytes(path), where=str(path))

    def common_shape(self) -> tuple[int, int, int] | None:
        """(H, W, 3) if all images have one size, else None.

        Reads the headers of the files, up to the first that differs.
        """
        first = None
        for file in self.files:
            height, width = images.stored_size(self.root / file)
            first = first or (height, width, 3)
            if first != (height, width, 3):
                return None
        return first


def open_folder(folder: str, test_split: str = "", *, split: bool = False) -> Source:
    """Lists `folder:PATH`; no image is read.

    The images of test/ are held out, or those of val/ where test/ has none of the classes of
    train/: many sets publish test/ without labels.

    Args:
      folder: path; `~` is the home directory.
      test_split: the folder to hold out, 'test' or 'val'; '' for the rule above.
      split: whether test images will be split off the training images: then no test/ is needed, the
        folders of classes may be in PATH itself, and the test split is the training split.

    Raises:
      UserError: a folder or split is missing, a class is empty, the splits' classes differ, or
        what is named as an image is not a regular file.
    """
    root = expanded(folder)
    if not is_directory(root):
        raise UserError(f"{root}: no such folder; check config.data.source")
    if split and not test_split:
        directory = root / "train" if is_directory(root / "train") else root
        names = _class_names(directory)
        train = _list_split(directory, names)
        return Source(root.absolute().name, train, train, names)
    if not is_directory(root / "train"):
        raise UserError(
            f"{root}: no train/ in it; needs train/CLASS/*.jpg and test/ or val/, or CLASS/*.jpg "
            "and config.data.validation_fraction"
        )
    train_names = _class_names(root / "train")
    held_out = _held_out(root, train_names, test_split)
    test_names = _class_names(held_out)
    if train_names != test_names:
        differing = sorted(set(train_names) ^ set(test_names))
        raise UserError(
            f"{held_out}: {len(test_names)} classes against {len(train_names)} in train/ (first "
            f"that differs: {differing[0]}); both need the same class folders"
        )
    train, test = (_list_split(split, train_names) for split in (root / "train", held_out))
    return Source(root.absolute().name, train, test, train_names)


def _held_out(root: Path, train_names: tuple[str, ...], test_split: str) -> Path:
    if test_split:
        if not is_directory(root / test_split):
            raise UserError(f"{root}: has no {test_split}/, which config.data.test_split names")
        return root / test_split
    present = [root / name for name in _HELD_OUT if is_directory(root / name)]
    if not present:
        raise UserError(
            f"{root}: has train/ but neither test/ nor val/ to evaluate on; "
            "hold some out by config.data.validation_fraction=0.2"
        )
    labeled = [split for split in present if set(_folders(split)) & set(train_names)]
    return (labeled or present)[0]


def _folders(root: Path) -> tuple[str, ...]:
    return tuple(entry.name for entry in sorted_entries(root) if is_directory(entry))


def _class_names(root: Path) -> tuple[str, ...]:
    names = _folders(root)
    if not names:
        raise UserError(f"{root}: no class folders in it; needs {root.name}/CLASS/*.jpg")
    return names


def _list_split(root: Path, names: tuple[str, ...]) -> RecordSplit:
    files, labels = [], []
    for label, name in enumerate(names):
        paths = [path for path in sorted_entries(root / name) if path.suffix.lower() in EXTENSIONS]
        if not paths:
            raise UserError(
                f"{root / name}: no images ({', '.join(sorted(EXTENSIONS))}) in this class; "
                "add some or remove the folder from both splits"
            )
        for path in paths:
            check_regular(path)
        files += [f"{name}/{path.name}" for path in paths]
        labels += [label] * len(paths)
    return RecordSplit(FolderRecords(root, files), np.array(labels, np.int32))
