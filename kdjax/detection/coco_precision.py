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
MOST = (1, 10, 100)  # detections of a class in an image


class CocoResult(NamedTuple):
    """What is reported of a set. A number is -1 where there are no objects for it.

    Attributes:
      stats: 'AP', 'AP50', 'AP75', 'AP_small', 'AP_medium', 'AP_large', 'AR_1', 'AR_10', 'AR_100',
        'AR_small', 'AR_medium', 'AR_large'.
      class_ap: `[K]`.
      precision: `[10, 101, K]`, of every overlap and recall, with all areas and 100 detections.
      recall: `[10, K, 4]`, of every overlap and range of areas, with 100 detections.
    """

    stats: dict[str, float]
    class_ap: np.ndarray
    precision: np.ndarray
    recall: np.ndarray


class _Matched(NamedTuple):
    """The detections of one class in one image, by falling score."""

    score: np.ndarray  # [D]
    hit: np.ndarray  # [10, D]
    ignored: np.ndarray  # [10, D]
    objects: int  # that are not ignored


def coco(objects: Objects, detected: Detected, num_classes: int) -> CocoResult:
    """COCO's measures of the detections in a set of images.

    Args:
      objects: of all images.
      detected: of all images; the best 100 of every class and image count.
      num_classes: K.
    """
    shape = len(OVERLAPS), len(RECALLS), num_classes, len(AREAS), len(MOST)
    precision = -np.ones(shape)
    recall = -np.ones((shape[0], *shape[2:]))
    for number in range(num_classes):
        truths = Objects(*(leaf[objects.category == number] for leaf in objects))
        ours = Detected(*(leaf[detected.category == number] for leaf in detected))
        groups = _by_image(truths, ours)
        for column, bounds in enumerate(AREAS.values()):
            matched = [_match(*group, bounds) for group in groups]
            count = sum(each.objects for each in matched)
            if count:
                for last, most in enumerate(MOST):
                    curves = _curves(matched, count, most)
                    precision[:, :, number, column, last], recall[:, number, column, last] = curves
    stats = _stats(precision, recall)
    classes = [_mean(precision[:, :, number, 0, -1]) for number in range(num_classes)]
    return CocoResult(stats, np.array(classes), precision[:, :, :, 0, -1], recall[..., -1])


def _by_image(truths: Objects, ours: Detected) -> list[tuple[Objects, Detected, np.ndarray]]:
    """The objects, the best detections by falling score and their overlaps, image by image."""
    images = np.union1d(truths.image, ours.image)
    by_owner = [np.argsort(each.image, kind="stable") for each in (truths, ours)]
    places = [
        np.searchsorted(each.image[order], [images, images + 1]).T
        for each, order in zip((truths, ours), by_owner, strict=True)
    ]
    groups = []
    for of_truths, of_ours in zip(*places, strict=True):
        real = Objects(*(leaf[by_owner[0][slice(*of_truths)]] for leaf in truths))
        seen = by_owner[1][slice(*of_ours)]
        seen = seen[np.argsort(-ours.score[seen], kind="stable")[: MOST[-1]]]
        detected = Detected(*(leaf[seen] for leaf in ours))
        values = overlaps(detected.box, real.box, real.ignored.astype(bool))
        groups.append((real, detected, values))
    return groups


def _match(
    truths: Objects, ours: Detected, values: np.ndarray, bounds: tuple[float, float]
) -> _Matched:
    """Gives every detection of an image the object that it overlaps the most of those left."""
    crowd = truths.ignored.astype(bool)
    ignored = crowd | (truths.area < bounds[0]) | (truths.area > bounds[1])
    taken = np.zeros((len(OVERLAPS), len(crowd)), bool)
    hit = np.zeros((len(OVERLAPS), len(ours.score)), bool)
    without = (ours.box[:, 2:] - ours.box[:, :2]).prod(-1)
    outside = (without < bounds[0]) | (without > bounds[1])
    neither = np.tile(outside, (len(OVERLAPS), 1))
    rows = np.arange(len(OVERLAPS))
    for i in range(len(ours.score) if len(crowd) else 0):
        possible = (values[i] >= OVERLAPS[:, None]) & (~taken | crowd)
        real = possible & ~ignored
        # Objects that count come first; of equal overlaps the last one.
        possible = np.where(real.any(1, keepdims=True), real, possible)
        ranked = np.where(possible, values[i], -1)[:, ::-1]
        chosen = len(crowd) - 1 - ranked.argmax(1)
        found = possible.any(1)
        hit[:, i] = found
        neither[:, i] = np.where(found, ignored[chosen], neither[:, i])
        taken[rows[found], chosen[found]] = True
    return _Matched(ours.score, hit, neither, int((~ignored).sum()))


def _curves(matched: list[_Matched], count: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision at all recalls `[10, 101]` and the recall reached `[10]`, of a class."""
    scores = np.concatenate([each.score[:most] for each in matched])
    order = np.argsort(-scores, kind="stable")
    hit, ignored = (
        np.concatenate([getattr(each, name)[:, :most] for each in matched], 1)[:, order]
        for name in ("hit", "ignored")
    )
    right = np.cumsum(hit & ~ignored, 1).astype(float)
    wrong = np.cumsum(~hit & ~ignored, 1).astype(float)
    recall = right / count
    precision = right / (right + wrong + np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    table = np.zeros((len(OVERLAPS), len(RECALLS)))
    for row in range(len(OVERLAPS)):
        places = np.searchsorted(recall[row], RECALLS, side="left")
        reached = places < recall.shape[1]
        table[row, reached] = envelope[row, places[reached]]
    return table, recall[:, -1] if recall.shape[1] else np.zeros(len(OVERLAPS))


def _mean(values: np.ndarray) -> float:
    """The mean where there is something to measure, else -1."""
    real = values[values > -1]
    return float(real.mean()) if real.size else -1.0


def _stats(precision: np.ndarray, recall: np.ndarray) -> dict[str, float]:
    at = {round(100 * value): row for row, value in enumerate(OVERLAPS)}
    stats = {"AP": _mean(precision[..., 0, -1])}
    stats |= {f"AP{value}": _mean(precision[at[value], ..., 0, -1]) for value in (50, 75)}
    sizes = list(enumerate(AREAS))[1:]
    stats |= {f"AP_{name}": _mean(precision[..., column, -1]) for column, name in sizes}
    stats |= {f"AR_{most}": _mean(recall[..., 0, last]) for last, most in enumerate(MOST)}
    return stats | {f"AR_{name}": _mean(recall[..., column, -1]) for column, name in sizes}
