"""COCO's average precision and recall.

Source: Lin et al., ECCV 2014; the rules of `pycocotools.cocoeval`, in numpy.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kdjax.detection.average_precision import Detected, Objects, overlaps

OVERLAPS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AREAS = {
    "all": (0, 1e10),
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, 1e10),
}
MAX_DETECTIONS = (1, 10, 100)  # of a class in an image


class CocoResult(NamedTuple):
    """COCO's measures of a data set; a number is -1 where there are no objects to measure.

    Attributes:
      stats: 'AP', 'AP50', 'AP75', 'AP_small', 'AP_medium', 'AP_large', 'AR_1', 'AR_10', 'AR_100',
        'AR_small', 'AR_medium', 'AR_large'.
      class_ap: `[K]`, average precision of every class.
      precision: `[10, 101, K]`, for every overlap and recall, of all areas and 100 detections.
      recall: `[10, K, 4]`, for every overlap and range of areas, of 100 detections.
    """

    stats: dict[str, float]
    class_ap: np.ndarray
    precision: np.ndarray
    recall: np.ndarray


class _Matched(NamedTuple):
    """The matches of the detections of one class in one image, by decreasing score."""

    score: np.ndarray  # [D]
    hit: np.ndarray  # [10, D]
    ignored: np.ndarray  # [10, D]
    objects: int  # number of objects that are not ignored


def coco(objects: Objects, detected: Detected, num_classes: int) -> CocoResult:
    """COCO's measures of the detections in a set of images.

    Args:
      objects: objects of all images.
      detected: detections in all images; the best 100 of every class and image are measured.
      num_classes: K.
    """
    shape = len(OVERLAPS), len(RECALLS), num_classes, len(AREAS), len(MAX_DETECTIONS)
    precision = -np.ones(shape)
    recall = -np.ones((shape[0], *shape[2:]))
    for number in range(num_classes):
        truths = Objects(*(leaf[objects.category == number] for leaf in objects))
        predicted = Detected(*(leaf[detected.category == number] for leaf in detected))
        groups = _by_image(truths, predicted)
        for column, bounds in enumerate(AREAS.values()):
            matched = [_match(*group, bounds) for group in groups]
            count = sum(image.objects for image in matched)
            if count:
                for last, limit in enumerate(MAX_DETECTIONS):
                    curves = _curves(matched, count, limit)
                    precision[:, :, number, column, last], recall[:, number, column, last] = curves
    stats = _stats(precision, recall)
    classes = [_mean(precision[:, :, number, 0, -1]) for number in range(num_classes)]
    return CocoResult(stats, np.array(classes), precision[:, :, :, 0, -1], recall[..., -1])


def _by_image(truths: Objects, predicted: Detected) -> list[tuple[Objects, Detected, np.ndarray]]:
    """The objects, the best detections by decreasing score and their overlaps, of every image."""
    owners = (truths.image, predicted.image)
    images = np.union1d(*owners)
    orders = [np.argsort(numbers, kind="stable") for numbers in owners]
    ranges = [
        np.searchsorted(numbers[order], [images, images + 1]).T
        for numbers, order in zip(owners, orders, strict=True)
    ]
    groups = []
    for truth_range, predicted_range in zip(*ranges, strict=True):
        objects = Objects(*(leaf[orders[0][slice(*truth_range)]] for leaf in truths))
        chosen = orders[1][slice(*predicted_range)]
        ranking = np.argsort(-predicted.score[chosen], kind="stable")[: MAX_DETECTIONS[-1]]
        detected = Detected(*(leaf[chosen[ranking]] for leaf in predicted))
        values = overlaps(detected.box, objects.box, objects.ignored.astype(bool))
        groups.append((objects, detected, values))
    return groups


def _match(
    truths: Objects, predicted: Detected, values: np.ndarray, bounds: tuple[float, float]
) -> _Matched:
    """Matches the detections of an image, one by one, with the free objects of largest overlap."""
    crowd = truths.ignored.astype(bool)
    ignored = crowd | (truths.area < bounds[0]) | (truths.area > bounds[1])
    taken = np.zeros((len(OVERLAPS), len(crowd)), bool)
    hit = np.zeros((len(OVERLAPS), len(predicted.score)), bool)
    areas = (predicted.box[:, 2:] - predicted.box[:, :2]).prod(-1)
    outside = (areas < bounds[0]) | (areas > bounds[1])
    ignored_hit = np.tile(outside, (len(OVERLAPS), 1))
    rows = np.arange(len(OVERLAPS))
    for i in range(len(predicted.score) if len(crowd) else 0):
        possible = (values[i] >= OVERLAPS[:, None]) & (~taken | crowd)
        counted = possible & ~ignored
        # Objects that are not ignored take precedence, and the last one among equal overlaps.
        possible = np.where(counted.any(1, keepdims=True), counted, possible)
        ranked = np.where(possible, values[i], -1)[:, ::-1]
        chosen = len(crowd) - 1 - ranked.argmax(1)
        matched = possible.any(1)
        hit[:, i] = matched
        ignored_hit[:, i] = np.where(matched, ignored[chosen], ignored_hit[:, i])
        taken[rows[matched], chosen[matched]] = True
    return _Matched(predicted.score, hit, ignored_hit, int((~ignored).sum()))


def _curves(matched: list[_Matched], count: int, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision at all recalls `[10, 101]` and the largest recall `[10]`, of a class."""
    scores = np.concatenate([image.score[:limit] for image in matched])
    order = np.argsort(-scores, kind="stable")
    hit, ignored = (
        np.concatenate([getattr(image, name)[:, :limit] for image in matched], 1)[:, order]
        for name in ("hit", "ignored")
    )
    true_positives = np.cumsum(hit & ~ignored, 1).astype(float)
    false_positives = np.cumsum(~hit & ~ignored, 1).astype(float)
    recall = true_positives / count
    precision = true_positives / (true_positives + false_positives + np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    table = np.zeros((len(OVERLAPS), len(RECALLS)))
    for row in range(len(OVERLAPS)):
        places = np.searchsorted(recall[row], RECALLS, side="left")
        reached = places < recall.shape[1]
        table[row, reached] = envelope[row, places[reached]]
    return table, recall[:, -1] if recall.shape[1] else np.zeros(len(OVERLAPS))


def _mean(values: np.ndarray) -> float:
    """The mean of the values that are measured; -1 if there are none."""
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else -1.0


def _stats(precision: np.ndarray, recall: np.ndarray) -> dict[str, float]:
    at = {round(100 * value): row for row, value in enumerate(OVERLAPS)}
    stats = {"AP": _mean(precision[..., 0, -1])}
    stats |= {f"AP{value}": _mean(precision[at[value], ..., 0, -1]) for value in (50, 75)}
    sizes = list(enumerate(AREAS))[1:]
    stats |= {f"AP_{name}": _mean(precision[..., column, -1]) for column, name in sizes}
    stats |= {
        f"AR_{limit}": _mean(recall[..., 0, last]) for last, limit in enumerate(MAX_DETECTIONS)
    }
    return stats | {f"AR_{name}": _mean(recall[..., column, -1]) for column, name in sizes}
