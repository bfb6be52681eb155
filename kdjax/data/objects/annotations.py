"""Images with objects: the common result of the readers of all formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kdjax.data.regular_files import is_regular, read_bytes
from kdjax.errors import UserError

ROUNDING = 0.5  # pixels by which a box may exceed its image, as formats round coordinates
BAD_BOXES = ("refuse", "drop")


class AnnotatedImage(NamedTuple):
    """An image file and its n objects, of which there may be none.

    Attributes:
      file: of the image.
      height: in pixels.
      width: in pixels.
      boxes: `[n, 4]` float32.
      labels: `[n]` int32, classes from 1 on.
      areas: `[n]` float32, of the objects.
      ignored: `[n]` bool: crowds (COCO) and difficult objects (VOC), which are left out of
        training, and whose detections are neither true nor false positives.
    """

    file: Path
    height: int
    width: int
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    ignored: np.ndarray


class AnnotatedSet(NamedTuple):
    """Images with objects.

    Attributes:
      images: in a fixed order.
      class_names: the first class has the label 1.
    """

    images: tuple[AnnotatedImage, ...]
    class_names: tuple[str, ...]


class Object(NamedTuple):
    """An object in an annotation file.

    Attributes:
      box: `x1 y1 x2 y2` in pixels.
      label: class from 1 on.
      where: its name in messages.
      area: in pixels; None for the area of the box.
      ignored: whether it is a crowd or difficult.
    """

    box: tuple[float, float, float, float]
    label: int
    where: str
    area: float | None = None
    ignored: bool = False


def annotated(
    file: Path, height: int, width: int, objects: list[Object], bad_boxes: str = "refuse"
) -> AnnotatedImage:
    """Makes an `AnnotatedImage`, with boxes clipped to the image.

    Args:
      file: of the image.
      height: in pixels.
      width: in pixels.
      objects: any number of objects.
      bad_boxes: 'refuse' raises an error for boxes without area and boxes that exceed the image by
        more than half a pixel, of which COCO's training set has some; 'drop' clips boxes and leaves
        out those without area in the image.

    Raises:
      UserError: a box is not of finite numbers, has no area or leaves the image.
    """
    if bad_boxes not in BAD_BOXES:
        raise UserError(f"bad_boxes={bad_boxes!r} is unknown; use refuse or drop")
    kept = []
    for item in objects:
        box = np.array(item.box, np.float64)
        if not np.isfinite(box).all():
            raise UserError(f"{item.where}: a box of {_text(box)}; boxes are four finite numbers")
        clipped = np.clip(box, 0, [width, height, width, height])
        empty = (clipped[2:] <= clipped[:2]).any()
        if bad_boxes == "refuse":
            _refuse(item, box, clipped, height, width)
        if not empty:
            kept.append((clipped, item))
    boxes = np.array([box for box, _ in kept], np.float32).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = [
        area if item.area is None else item.area
        for area, (_, item) in zip(sides.prod(1), kept, strict=True)
    ]
    return AnnotatedImage(
        file,
        height,
        width,
        boxes,
        np.array([item.label for _, item in kept], np.int32),
        np.array(areas, np.float32),
        np.array([item.ignored for _, item in kept], bool),
    )


def _refuse(item: Object, box: np.ndarray, clipped: np.ndarray, height: int, width: int) -> None:
    way_out = "correct it, or read with bad_boxes='drop'"
    if (box[2:] <= box[:2]).any():
        raise UserError(f"{item.where}: the box {_text(box)} is empty; {way_out}")
    if np.abs(box - clipped).max() > ROUNDING or (clipped[2:] <= clipped[:2]).any():
        raise UserError(
            f"{item.where}: the box {_text(box)} is outside its image of {width}x{height}; "
            f"{way_out}"
        )


def _text(box: np.ndarray) -> str:
    return " ".join(f"{value:g}" for value in box)


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
      UserError: not a regular file, or not JSON.
    """
    try:
        return json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({' '.join(str(error).split())[:120]})") from error


def check_image(path: Path, where: str) -> Path:
    """Checks that an image file exists, and returns its path.

    Raises:
      UserError: it does not exist.
    """
    if not is_regular(path):
        raise UserError(f"{where}: the image {path} is missing; check the folder of the images")
    return path
