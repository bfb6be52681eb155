"""PASCAL VOC's average precision, in numpy, and the inputs that it shares with COCO's measures.

The detections of a whole data set are measured at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Objects(NamedTuple):
    """The objects of a set of images, in any order.

    Attributes:
      image: `[G]`, number of the image.
      category: `[G]` classes, from 0.
      box: `[G, 4]`.
      area: `[G]` of the objects, which may be smaller than their boxes.
      ignored: `[G]`, whether the object is a crowd (COCO) or difficult (VOC): its detection is
        neither a true nor a false positive.
    """

    image: np.ndarray
    category: np.ndarray
    box: np.ndarray
    area: np.ndarray
    ignored: np.ndarray


class Detected(NamedTuple):
    """The detections in a set of images, in any order.

    Attributes:
      image: `[D]`, number of the image.
      category: `[D]` classes, from 0.
      box: `[D, 4]`.
      score: `[D]`.
    """

    image: np.ndarray
    category: np.ndarray
    box: np.ndarray
    score: np.ndarray


def overlaps(
    detected: np.ndarray, objects: np.ndarray, crowd: np.ndarray, inclusive: float = 0
) -> np.ndarray:
    """Intersection over union `[D, G]`; intersection over the detection's area for crowds.

    Args:
      detected: `[D, 4]`.
      objects: `[G, 4]`.
      crowd: `[G]`, whether the object is a crowd.
      inclusive: is added to the sides of boxes: 1 where `x2` and `y2` are inclusive, else 0.
    """
    low = np.maximum(detected[:, None, :2], objects[None, :, :2])
    high = np.minimum(detected[:, None, 2:], objects[None, :, 2:])
    intersection = np.maximum(high - low + inclusive, 0).prod(-1)
    areas = (detected[:, 2:] - detected[:, :2] + inclusive).prod(-1)[:, None]
    others = (objects[:, 2:] - objects[:, :2] + inclusive).prod(-1)[None]
    union = np.where(crowd, areas, areas + others - intersection)
    return intersection / np.where(union > 0, union, 1)


class VocResult(NamedTuple):
    """Average precision of every class; NaN for classes without objects.

    Attributes:
      ap07: `[K]`, the mean precision at 11 recalls: the measure of 2007.
      ap10: `[K]`, the area under the envelope of the precision: the measure since 2010.
    """

    ap07: np.ndarray
    ap10: np.ndarray


def voc(
    objects: Objects,
    detected: Detected,
    num_classes: int,
    *,
    overlap: float = 0.5,
    inclusive: bool = False,
) -> VocResult:
    """PASCAL VOC's average precision of every class, by the rules of 2007 and of 2010.

    A detection is matched with the object that it overlaps the most. Further detections of the same
    object are false positives.

    Args:
      objects: objects of all images; difficult ones are ignored.
      detected: detections in all images.
      num_classes: K.
      overlap: intersection over union that a match must exceed.
      inclusive: whether `x2` and `y2` are inclusive, so that sides are `x2 - x1 + 1`, as in VOC's
        code.

    Source: Everingham et al. 2010, section 4.2.
    """
    results = [
        _voc_class(objects, detected, number, overlap, float(inclusive))
        for number in range(num_classes)
    ]
    return VocResult(*map(np.array, zip(*results, strict=True)))


def _voc_class(
    objects: Objects, detected: Detected, number: int, overlap: float, inclusive: float
) -> tuple[float, float]:
    """The average precisions of one class by both rules."""
    truths = Objects(*(leaf[objects.category == number] for leaf in objects))
    predicted = Detected(*(leaf[detected.category == number] for leaf in detected))
    count = int((~truths.ignored.astype(bool)).sum())
    if not count:
        return np.nan, np.nan
    hits = np.zeros(len(predicted.score), int)  # 1: true positive, -1: false positive, 0: ignored
    taken = np.zeros(len(truths.box), bool)
    order = np.argsort(-predicted.score, kind="stable")
    for rank, i in enumerate(order):
        candidates = np.flatnonzero(truths.image == predicted.image[i])
        hits[rank] = -1
        if not candidates.size:
            continue
        no_crowd = np.zeros(candidates.size, bool)
        boxes = predicted.box[i][None], truths.box[candidates]
        values = overlaps(*boxes, no_crowd, inclusive)[0]
        best = candidates[values.argmax()]
        if values.max() > overlap:
            if truths.ignored[best]:
                hits[rank] = 0
            elif not taken[best]:
                hits[rank], taken[best] = 1, True
    right, wrong = np.cumsum(hits == 1), np.cumsum(hits == -1)
    recall, precision = right / count, right / np.maximum(right + wrong, np.finfo(float).eps)
    return _eleven_points(recall, precision), _area(recall, precision)


def _eleven_points(recall: np.ndarray, precision: np.ndarray) -> float:
    reached = recall[None] >= np.arange(0, 1.1, 0.1)[:, None]
    return float(np.where(reached, precision[None], 0).max(1, initial=0).mean())


def _area(recall: np.ndarray, precision: np.ndarray) -> float:
    recall = np.concatenate([[0], recall, [1]])
    envelope = np.maximum.accumulate(np.concatenate([precision, [0]])[::-1])[::-1]
    return float((np.diff(recall) * envelope).sum())
