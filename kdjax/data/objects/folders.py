"""Sources of images with objects: `coco:PATH`, `voc:PATH` and `yolo:PATH`.

    coco  PATH/annotations/instances_train*.json, and instances_test*.json or instances_val*.json;
          the images of instances_NAME.json in PATH/NAME or PATH/images/NAME
    voc   PATH/VOC2007 and, if it is there, PATH/VOC2012, of which the lists 'trainval' are trained
          on and VOC2007's 'test' evaluated; or, where there is no such list, 'train' and 'val'; or
          PATH/JPEGImages, PATH/Annotations and PATH/ImageSets/Main, one year alone
    yolo  PATH/images/train and PATH/labels/train, 'test' or 'val' likewise; PATH/classes.txt with
          the names of the classes, one on a line, from class 0 on

VOC's classes are its 20, unless PATH/classes.txt names others.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kdjax.data import images
from kdjax.data.objects.annotations import AnnotatedImage, AnnotatedSet
from kdjax.data.objects.coco_json import read_coco
from kdjax.data.objects.columns import SplitObjects
from kdjax.data.objects.voc_xml import VOC_CLASSES, read_voc
from kdjax.data.objects.yolo_text import read_yolo
from kdjax.data.regular_files import (
    expanded,
    is_directory,
    is_regular,
    read_bytes,
    sorted_entries,
)
from kdjax.data.splits import RecordSplit, Source
from kdjax.errors import UserError

_YEARS = ("VOC2007", "VOC2012")


class ImageFiles:
    """Image files, decoded to RGB on access."""

    def __init__(self, files: list[str]):
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray:
        path = Path(self.files[index])
        return images.decode(read_bytes(path), where=str(path))

    def common_shape(self) -> None:
        """None: the images are placed on a canvas."""

    def where(self, index: int) -> str:
        """The file of an image."""
        return self.files[index]


def open_coco(folder: str, test_split: str = "", bad_boxes: str = "refuse") -> Source:
    """Reads the annotations of `coco:PATH`; no image is read.

    Args:
      folder: path; `~` is the home directory.
      test_split: 'test' or 'val'; '' is test, or val where there is no test.
      bad_boxes: 'refuse' or 'drop', as in `annotations.annotated`.

    Raises:
      UserError: a file is missing, more than one serves as a split, or as `read_coco`; or both
        splits have other classes.
    """
    root = _root(folder)
    lists = root / "annotations"
    if not is_directory(lists):
        raise UserError(f"{lists}: no such folder; instances_train*.json belongs there")
    present = [
        path
        for path in sorted_entries(lists)
        if path.match("instances_*.json") and is_regular(path)
    ]

    def split(names: tuple[str, ...]) -> AnnotatedSet:
        for name in names:
            files = [path for path in present if path.name.startswith(f"instances_{name}")]
            if len(files) > 1:
                raise UserError(
                    f"{lists}: {files[0].name} and {files[1].name} are both for {name}; leave one"
                )
            if files:
                return read_coco(files[0], _images_of(root, files[0]), bad_boxes=bad_boxes)
        raise UserError(f"{lists}: has no instances_{names[-1]}*.json")

    return _source(root, split(("train",)), split(_held_out(test_split)))


def _images_of(root: Path, file: Path) -> Path:
    name = file.stem.removeprefix("instances_")
    for folder in (root / name, root / "images" / name):
        if is_directory(folder):
            return folder
    raise UserError(f"{root / name}: no such folder; the images of {file.name} belong there")


def open_voc(folder: str, test_split: str = "", bad_boxes: str = "refuse") -> Source:
    """Reads the annotations of `voc:PATH`; no image is read.

    Args:
      folder: path; `~` is the home directory.
      test_split: 'test' or 'val'; '' is test, or val where there is no test.
      bad_boxes: 'refuse' or 'drop', as in `annotations.annotated`.

    Raises:
      UserError: a folder or list is missing, or as `read_voc`.
    """
    root = _root(folder)
    named = root / "classes.txt"
    classes = _class_names(named) if is_regular(named) else VOC_CLASSES

    def read(year: Path, split: str) -> AnnotatedSet:
        return read_voc(year, split, class_names=classes, bad_boxes=bad_boxes)

    alone = is_directory(root / "JPEGImages")
    years = [root] if alone else [root / year for year in _YEARS if is_directory(root / year)]
    if not years or years[0].name == _YEARS[1]:
        raise UserError(f"{root}: has neither {_YEARS[0]}/ nor JPEGImages/ in it")
    lists = years[0] / "ImageSets" / "Main"
    names = _held_out(test_split)
    held_out = next((name for name in names if is_regular(lists / f"{name}.txt")), names[-1])
    learned = {"test": "trainval", "val": "train"}[held_out]
    train = [image for year in years for image in read(year, learned).images]
    return _source(root, AnnotatedSet(tuple(train), tuple(classes)), read(years[0], held_out))


def open_yolo(folder: str, test_split: str = "", bad_boxes: str = "refuse") -> Source:
    """Reads the labels of `yolo:PATH`, and the headers of its images.

    Args:
      folder: path; `~` is the home directory.
      test_split: 'test' or 'val'; '' is test, or val where there is no test.
      bad_boxes: 'refuse' or 'drop', as in `annotations.annotated`.

    Raises:
      UserError: a folder or classes.txt is missing, or as `read_yolo`.
    """
    root = _root(folder)
    classes = _class_names(root / "classes.txt")
    names = _held_out(test_split)
    held_out = next((name for name in names if is_directory(root / "images" / name)), names[-1])
    train, test = (
        read_yolo(root / "images" / name, root / "labels" / name, classes, bad_boxes=bad_boxes)
        for name in ("train", held_out)
    )
    return _source(root, train, test)


def _held_out(test_split: str) -> tuple[str, ...]:
    """The names of the splits that may be evaluated, in order of preference."""
    return (test_split,) if test_split else ("test", "val")


def _root(folder: str) -> Path:
    root = expanded(folder)
    if not is_directory(root):
        raise UserError(f"{root}: no such folder; check config.data.source")
    return root


def _class_names(file: Path) -> tuple[str, ...]:
    if not is_regular(file):
        raise UserError(f"{file}: missing; write the names of the classes to it, one on a line")
    lines = read_bytes(file).decode(errors="replace").splitlines()
    names = tuple(line.strip() for line in lines if line.strip())
    if not names or len(set(names)) < len(names):
        raise UserError(f"{file}: holds {len(names)} names; needs one or more, all different")
    return names


def _source(root: Path, train: AnnotatedSet, test: AnnotatedSet) -> Source:
    if train.class_names != test.class_names:
        raise UserError(f"{root}: the classes of training and test annotations are not the same")
    name = root.absolute().name
    return Source(name, _split(train.images), _split(test.images), train.class_names)


def _split(annotated: tuple[AnnotatedImage, ...]) -> RecordSplit:
    records = ImageFiles([str(image.file) for image in annotated])
    objects = SplitObjects.joined(annotated)
    return RecordSplit(records, np.zeros(len(annotated), np.int32), objects=objects)
