"""Objects in PASCAL VOC's format: an XML file for every image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from kdjax.data.objects.annotations import (
    AnnotatedImage,
    AnnotatedSet,
    Object,
    annotated,
    check_image,
)
from kdjax.data.regular_files import read_bytes
from kdjax.errors import UserError

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip


def read_voc(
    folder: str | Path,
    split: str,
    *,
    class_names: Sequence[str] = VOC_CLASSES,
    bad_boxes: str = "refuse",
) -> AnnotatedSet:
    """Reads a folder such as `VOC2007`, with JPEGImages/, Annotations/ and ImageSets/Main/.

    VOC's pixels are numbered from 1 and its boxes include their last pixel; here boxes are `x1 - 1,
    y1 - 1, x2, y2`, whose sides are those of VOC's code.

    Args:
      folder: the folder of one year.
      split: name of the list in ImageSets/Main/, such as 'trainval'.
      class_names: of the objects.
      bad_boxes: 'refuse' or 'drop', as in `annotated`.

    Raises:
      UserError: a file is missing or not of this form, an object's class is unknown, or its box is
        refused.
    """
    folder = Path(folder)
    listed = folder / "ImageSets" / "Main" / f"{split}.txt"
    names = read_bytes(listed).decode("utf-8", "replace").split()
    if not names:
        raise UserError(f"{listed}: lists no images")
    labels = {name: label for label, name in enumerate(class_names, start=1)}
    images = [_read(folder, name, labels, bad_boxes) for name in names]
    return AnnotatedSet(tuple(images), tuple(class_names))


def _read(folder: Path, name: str, labels: dict[str, int], bad_boxes: str) -> AnnotatedImage:
    path = folder / "Annotations" / f"{name}.xml"
    content = read_bytes(path)
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise UserError(f"{path}: declares entities, which VOC's files do not")
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{path}: not XML ({error})") from error
    height, width = (int(_number(root, f"size/{side}", path)) for side in ("height", "width"))
    objects = []
    for number, item in enumerate(root.iterfind("object"), start=1):
        where = f"{path}, object {number}"
        kind = (item.findtext("name") or "").strip()
        if kind not in labels:
            raise UserError(f"{where}: the class {kind!r} is none of the {len(labels)} classes")
        x1, y1, x2, y2 = (
            _number(item, f"bndbox/{side}", where) for side in ("xmin", "ymin", "xmax", "ymax")
        )
        difficult = (item.findtext("difficult") or "0").strip() == "1"
        box = (x1 - 1, y1 - 1, x2, y2)
        objects.append(Object(box, labels[kind], where, ignored=difficult))
    image = check_image(folder / "JPEGImages" / f"{name}.jpg", str(path))
    return annotated(image, height, width, objects, bad_boxes)


def _number(element: ElementTree.Element, path: str, where: str | Path) -> float:
    text = element.findtext(path)
    try:
        return float(text or "")
    except ValueError:
        raise UserError(f"{where}: {path} is {text!r}, not a number") from None
