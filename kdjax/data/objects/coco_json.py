"""Objects in COCO's format: one JSON file for a whole set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdjax.data.objects.annotations import AnnotatedSet, Object, annotated, check_image, read_json
from kdjax.errors import UserError

_PARTS = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}


def read_coco(file: str | Path, images: str | Path, *, bad_boxes: str = "refuse") -> AnnotatedSet:
    """Reads a file such as `instances_train2017.json`.

    Classes are in the order of their ids. Images without annotations are kept.

    Args:
      file: with 'images', 'annotations' and 'categories'.
      images: folder of the image files.
      bad_boxes: 'refuse' or 'drop', as in `annotated`.

    Raises:
      UserError: the file is not of this form, an annotation is of an image or a class that it does
        not list, an image file is missing, or a box is refused.
    """
    file, folder = Path(file), Path(images)
    content = read_json(file)
    _check(file, content)
    categories = sorted(content["categories"], key=lambda category: category["id"])
    labels = {category["id"]: i for i, category in enumerate(categories, start=1)}
    objects: dict[Any, list[Object]] = {image["id"]: [] for image in content["images"]}
    for number, item in enumerate(content["annotations"]):
        where = f"{file}, annotation {item.get('id', number)}"
        if item["image_id"] not in objects:
            raise UserError(f"{where}: no image has the id {item['image_id']!r}")
        if item["category_id"] not in labels:
            raise UserError(
                f"{where}: no class has the id {item['category_id']!r}; 'categories' lists "
                f"{len(labels)}"
            )
        x, y, width, height = _numbers(item["bbox"], where)
        objects[item["image_id"]].append(
            Object(
                (x, y, x + width, y + height),
                labels[item["category_id"]],
                where,
                area=item.get("area"),
                ignored=bool(item.get("iscrowd", False)),
            )
        )
    read = [
        annotated(
            check_image(folder / image["file_name"], f"{file}, image {image['id']}"),
            image["height"],
            image["width"],
            objects[image["id"]],
            bad_boxes,
        )
        for image in content["images"]
    ]
    return AnnotatedSet(tuple(read), tuple(str(category["name"]) for category in categories))


def _check(file: Path, content: Any) -> None:
    for part, fields in _PARTS.items():
        rows = content.get(part) if isinstance(content, dict) else None
        if not isinstance(rows, list):
            raise UserError(f"{file}: no list {part!r}; COCO's files have {', '.join(_PARTS)}")
        for number, row in enumerate(rows):
            missing = [f for f in fields if not isinstance(row, dict) or f not in row]
            if missing:
                raise UserError(f"{file}: entry {number} of {part!r} has no {missing[0]!r}")
    if not content["images"] or not content["categories"]:
        raise UserError(f"{file}: lists no images or no categories")


def _numbers(values: Any, where: str) -> list[float]:
    real = isinstance(values, list) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    )
    if not real or len(values) != 4:
        raise UserError(f"{where}: 'bbox' is {values!r}; it is x, y, width, height")
    return values
