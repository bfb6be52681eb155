"""How detectors are measured over a split: by average precision, of COCO and of PASCAL VOC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from kdjax.data import RecordSplit
from kdjax.detection.average_precision import Detected, Objects, voc
from kdjax.detection.coco_precision import coco
from kdjax.methods.evaluation import RowEvaluation

Array = jax.Array | np.ndarray

# COCO's names of what is reported, and those of metrics.
_COCO = {
    "AP": "ap",
    "AP50": "ap50",
    "AP75": "ap75",
    "AP_small": "ap_small",
    "AP_medium": "ap_medium",
    "AP_large": "ap_large",
    "AR_100": "ar100",
}


class CanvasDetections(NamedTuple):
    """What was detected in images that lie on a canvas, by falling score.

    Attributes:
      boxes: `[B, D, 4]`, in pixels of the canvas.
      scores: `[B, D]` probabilities.
      labels: `[B, D]` classes from 1 on.
      valid: `[B, D]`, which entries are detections.
      sizes: `[B, 2]` heights and widths of the images on the canvas.
    """

    boxes: Array
    scores: Array
    labels: Array
    valid: Array
    sizes: Array


def in_stored_pixels(rows: CanvasDetections, sizes: np.ndarray) -> Detected:
    """Detections of N images, in the pixels of the images as they are stored.

    Args:
      rows: of N images, `[N, ...]`.
      sizes: `[N, 2]` heights and widths of the stored images.
    """
    boxes, scores, labels, valid, canvas_sizes = map(np.asarray, rows)
    image, place = np.nonzero(valid)
    ratio = np.asarray(sizes, np.float64) / canvas_sizes
    stored = boxes[image, place] * ratio[image][:, [1, 0, 1, 0]]
    return Detected(image, labels[image, place] - 1, stored, scores[image, place])


def _rows(prediction: CanvasDetections) -> dict[str, jax.Array]:
    return prediction._asdict()


def _metrics(
    rows: Mapping[str, np.ndarray], split: RecordSplit, class_names: Sequence[str]
) -> dict[str, float]:
    """Average precisions of the objects as they are annotated; crowds and difficult ones are none.

    'ap', 'ap50', 'ap75', 'ap_small', 'ap_medium', 'ap_large' and 'ar100' are COCO's; 'voc07' and
    'voc10' VOC's at an overlap of 0.5, by 11 points and by area; 'ap/CLASS' COCO's of a class. What
    there are no objects for is left out.
    """
    objects = split.objects
    truths = Objects(
        objects.owners, objects.labels - 1, objects.boxes, objects.areas, objects.ignored
    )
    detected = in_stored_pixels(CanvasDetections(**rows), objects.sizes)
    result = coco(truths, detected, len(class_names))
    by_voc = voc(truths, detected, len(class_names))
    values = {metric: result.stats[name] for name, metric in _COCO.items()}
    values |= {
        f"ap/{name}": float(value) for name, value in zip(class_names, result.class_ap, strict=True)
    }
    return {name: value for name, value in values.items() if value >= 0} | {
        "voc07": float(np.nanmean(by_voc.ap07)),
        "voc10": float(np.nanmean(by_voc.ap10)),
    }


DETECTION = RowEvaluation(_rows, _metrics, accuracy="ap", label="AP")
