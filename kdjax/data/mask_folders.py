"""Folders of images and masks: `masks:PATH`.

    folders     PATH/train/images/*.jpg and PATH/train/masks/*.png, PATH/test or PATH/val likewise;
                PATH/classes.txt with the names of the classes, one on a line, from class 0 on
    voc         PATH/JPEGImages, PATH/SegmentationClass, PATH/ImageSets/Segmentation/train.txt and
                val.txt; or, where they are there, SegmentationClassAug and trainaug.txt
    cityscapes  PATH/leftImg8bit/{train,val}/CITY and PATH/gtFine/{train,val}/CITY
    ade20k      PATH/images/{training,validation} and PATH/annotations/{training,validation}

Masks are gray or palette PNG files; their values, not their colors, are the classes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kdjax.data import images
from kdjax.data.folder import EXTENSIONS, FolderRecords
from kdjax.data.mask_classes import CITYSCAPES, VOC
from kdjax.data.masks import class_table, translated
from kdjax.data.regular_files import (
    check_regular,
    expanded,
    is_directory,
    is_regular,
    read_bytes,
    sorted_entries,
)
from kdjax.data.splits import RecordSplit, Source
from kdjax.errors import UserError

_ADE20K_CLASSES = 150


class SizedRecords(FolderRecords):
    """Image files below `root`, with the sizes of their headers."""

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of an image, by the header of its file."""
        return images.stored_size(self.root / self.files[index])


class MaskRecords:
    """Mask files below `root`, decoded to classes on access, uint8 [h, w]."""

    def __init__(self, root: Path, files: list[str], table: np.ndarray):
        self.root = root
        self.files = files
        self.table = table

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray:
        path = self.root / self.files[index]
        mask = images.decode_mask(read_bytes(path), where=str(path))
        return translated(mask, self.table, str(path))

    def where(self, index: int) -> str:
        """The file of a mask."""
        return str(self.root / self.files[index])


# The names of the classes, and the classes of mask values, `class_table`.
_Classes = tuple[tuple[str, ...], np.ndarray]


class _Layout(NamedTuple):
    """A layout of folders.

    Attributes:
      sign: a folder that only this layout has.
      pairs: `(root, training) -> [(image, mask), ...]`, files below the root.
      classes: `(root, a mask, ignored) -> names, table` of `class_table`.
    """

    sign: str
    pairs: Callable[[Path, bool], list[tuple[str, str]]]
    classes: Callable[[Path, str, int], _Classes]


def open_mask_folders(
    folder: str, layout: str = "", ignored: int = 255, test_split: str = ""
) -> Source:
    """Lists `masks:PATH`; no image is read.

    Args:
      folder: path; `~` is the home directory.
      layout: a name in `LAYOUTS`; '' to recognize it by the names of folders.
      ignored: value of ignored pixels.
      test_split: for the layout 'folders': the split to evaluate on, 'test' or 'val'.

    Raises:
      UserError: a folder, a list or a mask is missing, or the layout is not known.
    """
    root = expanded(folder)
    if not is_directory(root):
        raise UserError(f"{root}: no such folder; check config.data.source")
    if layout not in ("", *LAYOUTS):
        raise UserError(
            f"config.data.layout={layout!r}: folders with masks are {', '.join(LAYOUTS)}"
        )
    signs = [name for name, folders in LAYOUTS.items() if is_directory(root / folders.sign)]
    name = layout or next(iter(signs), "")
    if not name or name not in signs:
        missing = [LAYOUTS[name]] if name else LAYOUTS.values()
        raise UserError(f"{root}: has no {', '.join(folders.sign for folders in missing)}/ in it")
    known = LAYOUTS[name]
    if test_split and name != "folders":
        raise UserError(
            f"config.data.test_split={test_split!r} is of the layout folders; {root} is laid out "
            f"as {name} is, and evaluated on its validation images; leave it at ''"
        )
    trained = known.pairs(root, True)
    if test_split:
        evaluated = _matched(root, f"{test_split}/images", f"{test_split}/masks")
    else:
        evaluated = known.pairs(root, False)
    names, table = known.classes(root, trained[0][1], ignored)
    train, test = (_split(root, pairs, table) for pairs in (trained, evaluated))
    return Source(root.absolute().name, train, test, names)


def _split(root: Path, pairs: list[tuple[str, str]], table: np.ndarray) -> RecordSplit:
    for file in (file for pair in pairs for file in pair):
        check_regular(root / file)
    of_images, of_masks = (list(files) for files in zip(*pairs, strict=True))
    records = SizedRecords(root, of_images)
    return RecordSplit(records, np.zeros(len(pairs), np.int32), MaskRecords(root, of_masks, table))


def _matched(
    root: Path, of_images: str, of_masks: str, old: str = "", new: str = ""
) -> list[tuple[str, str]]:
    """Pairs of files of two folders, whose stems are equal without the endings `old` and `new`."""
    if not is_directory(root / of_images):
        raise UserError(f"{root / of_images}: no such folder; images belong there")
    if not is_directory(root / of_masks):
        raise UserError(f"{root / of_masks}: no such folder; masks belong there")
    masks = {
        path.stem.removesuffix(new): path.name
        for path in sorted_entries(root / of_masks)
        if path.suffix.lower() in EXTENSIONS
    }
    pairs = []
    for path in sorted_entries(root / of_images):
        if path.suffix.lower() not in EXTENSIONS:
            continue
        stem = path.stem.removesuffix(old)
        if stem not in masks:
            raise UserError(f"{path}: no mask {stem}{new}.png in {root / of_masks}")
        pairs.append((f"{of_images}/{path.name}", f"{of_masks}/{masks[stem]}"))
    if not pairs:
        raise UserError(f"{root / of_images}: no images in it")
    return pairs


def _folder_pairs(root: Path, train: bool) -> list[tuple[str, str]]:
    names = ("train",) if train else ("test", "val")
    split = next((name for name in names if is_directory(root / name)), None)
    if split is None:
        raise UserError(f"{root}: has no {' or '.join(names)}/ with images/ and masks/ in it")
    return _matched(root, f"{split}/images", f"{split}/masks")


def _folder_classes(root: Path, mask: str, ignored: int) -> _Classes:
    del mask
    file = root / "classes.txt"
    if not is_regular(file):
        raise UserError(f"{file}: missing; write the names of the classes to it, one on a line")
    lines = read_bytes(file).decode(errors="replace").splitlines()
    names = tuple(line.strip() for line in lines if line.strip())
    if not 2 <= len(names) <= 255 or len(set(names)) < len(names):
        raise UserError(f"{file}: holds {len(names)} names; needs 2 to 255, all different")
    return names, class_table(len(names), ignored)


def _voc_pairs(root: Path, train: bool) -> list[tuple[str, str]]:
    lists = root / "ImageSets" / "Segmentation"
    more = is_regular(lists / "trainaug.txt") and is_directory(root / "SegmentationClassAug")
    masks = "SegmentationClassAug" if more else "SegmentationClass"
    file = lists / f"{'trainaug' if train and more else 'train' if train else 'val'}.txt"
    if not is_regular(file):
        raise UserError(f"{file}: no such file; it lists the images of a split")
    names = read_bytes(file).decode(errors="replace").split()
    if not names:
        raise UserError(f"{file}: no images in it")
    return [(f"JPEGImages/{name}.jpg", f"{masks}/{name}.png") for name in names]


def _cityscapes_pairs(root: Path, train: bool) -> list[tuple[str, str]]:
    split = "train" if train else "val"
    if not is_directory(root / "leftImg8bit" / split):
        raise UserError(f"{root / 'leftImg8bit' / split}: no such folder")
    cities = [path.name for path in sorted_entries(root / "leftImg8bit" / split)]
    pairs = []
    for city in cities:
        where = f"gtFine/{split}/{city}"
        present = sorted_entries(root / where) if is_directory(root / where) else []
        translated_ids = any(path.stem.endswith("_labelTrainIds") for path in present)
        end = "_gtFine_labelTrainIds" if translated_ids else "_gtFine_labelIds"
        pairs += _matched(root, f"leftImg8bit/{split}/{city}", where, "_leftImg8bit", end)
    return pairs


def _cityscapes_classes(root: Path, mask: str, ignored: int) -> _Classes:
    del root
    names = tuple(CITYSCAPES.values())
    if "_labelTrainIds" in mask:
        return names, class_table(len(names), ignored)
    table = np.full(256, 255, np.int16)  # all other ids are ignored
    table[list(CITYSCAPES)] = np.arange(len(names))
    return names, table


def _ade20k_pairs(root: Path, train: bool) -> list[tuple[str, str]]:
    split = "training" if train else "validation"
    return _matched(root, f"images/{split}", f"annotations/{split}")


def _ade20k_classes(root: Path, mask: str, ignored: int) -> _Classes:
    del root, mask, ignored
    names = tuple(str(number) for number in range(1, _ADE20K_CLASSES + 1))
    return names, class_table(len(names), ignored=0, first=1)


LAYOUTS = {
    "voc": _Layout(
        "JPEGImages", _voc_pairs, lambda root, mask, ignored: (VOC, class_table(21, ignored))
    ),
    "cityscapes": _Layout("leftImg8bit", _cityscapes_pairs, _cityscapes_classes),
    "ade20k": _Layout("annotations", _ade20k_pairs, _ade20k_classes),
    "folders": _Layout("train", _folder_pairs, _folder_classes),
}
