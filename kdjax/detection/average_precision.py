"""Mean average precision, of PASCAL VOC; and what both benchmarks' measures are computed from.

In numpy: the detections of a whole set, all at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Objects(NamedTuple):
    """The objects of a set of images, in any order.

    Attributes:
      image: `[G]` numbers of images.
      category: `[G]` classes, from 0.
      box: `[G, 4]`.
      area: `[G]`: of the object, which may be smaller than its box.
      ignored: `[G]`, whether it is a crowd (COCO) or difficult (VOC): finding it counts neither for
        nor against.
    """

    image: np.ndarray
    category: np.ndarray
    box: np.ndarray
    area: np.ndarray
    ignored: np.ndarray


class Detected(NamedTuple):
    """The detections in a set of images, in any order.

    Attributes:
      image: `[D]` numbers of images.
      category: `[D]` classes, from 0.
      box: `[D, 4]`.
      score: `[D]`.
    """

    image: np.ndarray
    category: np.ndarray
    box: np.ndarray
    score: np.ndarray


def overlaps(
    detected: np.ndarray, objects: np.ndarray, crowd: np.ndarray, one: float = 0
) -> np.ndarray:
    """Intersection over union `[D, G]`; over the detection alone where the object is a crowd.

    Args:
      detected: `[D, 4]`.
      objects: `[G, 4]`.
      crowd: `[G]`.
      one: what is added to sides: 1 where `x2` and `y2` belong to the box.
    """
    low = np.maximum(detected[:, None, :2], objects[None, :, :2])
    high = np.minimum(detected[:, None, 2:], objects[None, :, 2:])
    intersection = np.maximum(high - low + one, 0).prod(-1)
    areas = (detected[:, 2:] - detected[:, :2] + one).prod(-1)[:, None]
    others = (objects[:, 2:] - objects[:, :2] + one).prod(-1)[None]
    union = np.where(crowd, areas, areas + others - intersection)
    return intersection / np.where(union > 0, union, 1)


class VocResult(NamedTuple):
    """Average precisions at an overlap above 0.5; nan for classes without objects.

    Attributes:
      ap07: `[K]`, the mean of the precision at 11 recalls.
      ap10: `[K]`, the area under the precision's envelope.
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

    A detection belongs to the object that it overlaps the most. A second one of the same object
    counts against.

    Args:
      objects: of which difficult ones count neither for nor against.
      detected: detections.
      num_classes: K.
      overlap: which a detection must exceed.
      inclusive: whether sides are `x2 - x1 + 1`, as in VOC's own code, whose boxes are of whole
        pixels.

    Source: Everingham et al. 2010, section 4.2.
    """
    results = [
        _voc_class(objects, detected, number, overlap, float(inclusive))
        for number in range(num_classes)
    ]
    return VocResult(*map(np.array, zip(*results, strict=True)))


def _voc_class(
    objects: Objects, detected: Detected, number: int, overlap: float, one: float
) -> tuple[float, float]:
    truths = Objects(*(leaf[objects.category == number] for leaf in objects))
    ours = Detected(*(leaf[detected.category == number] for leaf in detected))
    count = int((~truths.ignored.astype(bool)).sum())
    if not count:
        return np.nan, np.nan
    hits = np.zeros(len(ours.score), int)  # 1 for, -1 against, 0 neither
    taken = np.zeros(len(truths.box), bool)
    order = np.argsort(-ours.score, kind="stable")
    for place, i in enumerate(order):
        here = np.flatnonzero(truths.image == ours.image[i])
        hits[place] = -1
        if not here.size:
            continue
        values = overlaps(ours.box[i][None], truths.box[here], np.zeros(here.size, bool), one)[0]
        best = here[values.argmax()]
        if values.max() > overlap:
            if truths.ignored[best]:
                hits[place] = 0
            elif not taken[best]:
                hits[place], taken[best] = 1, True
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
