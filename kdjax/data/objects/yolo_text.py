"""Objects in YOLO's format: a text file for every image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdjax.data import images as image_files
from kdjax.data.folder import EXTENSIONS
from kdjax.data.objects.annotations import AnnotatedSet, Object, annotated
from kdjax.data.regular_files import exists, is_directory, read_bytes, sorted_entries
from kdjax.errors import UserError


def read_yolo(
    images: str | Path,
    labels: str | Path,
    class_names: Sequence[str],
    *,
    bad_boxes: str = "refuse",
) -> AnnotatedSet:
    """Reads a folder of images and one of their objects.

    `labels/NAME.txt` has a line for every object of `images/NAME.jpg`: its class, from 0, and its
    box's center, width and height relative to the image's width and height. An image without a
    file has no objects.

    Args:
      images: folder.
      labels: folder.
      class_names: of the classes.
      bad_boxes: 'refuse' or 'drop', as in `annotated`.

    Raises:
      UserError: a folder is missing or empty, a line is not of this form, a class is unknown, or a
        box is refused.
    """
    images, labels = Path(images), Path(labels)
    for folder in (images, labels):
        if not is_directory(folder):
            raise UserError(f"{folder}: no such folder")
    files = [path for path in sorted_entries(images) if path.suffix.lower() in EXTENSIONS]
    if not files:
        raise UserError(f"{images}: no images ({', '.join(sorted(EXTENSIONS))}) in it")
    read = []
    for file in files:
        height, width = image_files.stored_size(file)
        text = labels / f"{file.stem}.txt"
        lines = read_bytes(text).decode("utf-8", "replace").splitlines() if exists(text) else []
        objects = [
            _object(line, f"{text}, line {number}", (height, width), len(class_names))
            for number, line in enumerate(lines, start=1)
            if line.strip()
        ]
        read.append(annotated(file, height, width, objects, bad_boxes))
    return AnnotatedSet(tuple(read), tuple(class_names))


def _object(line: str, where: str, size: tuple[int, int], classes: int) -> Object:
    try:
        kind, *numbers = line.split()
        label = int(kind)
        x, y, width, height = map(float, numbers)
    except ValueError:
        raise UserError(
            f"{where}: {line.strip()[:60]!r} is not a class and center, width and height of a box"
        ) from None
    if not 0 <= label < classes:
        raise UserError(f"{where}: the class {label} is none of the {classes} classes from 0 on")
    x, width = x * size[1], width * size[1]
    y, height = y * size[0], height * size[0]
    box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return Object(box, label + 1, where)
