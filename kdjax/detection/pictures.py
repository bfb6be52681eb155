"""Pictures of detections beside the annotated objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdjax.detection.average_precision import Detected
from kdjax.detection.drawing import draw

_WIDTH = 320  # pixels; smaller images are enlarged, so that names can be read
_LOWEST = 0.5  # score of the detections that are drawn


def outline(image: np.ndarray, boxes: np.ndarray, value: float) -> None:
    """Draws the edges of boxes `[n, 4]` into an image `[H, W, C]`, one pixel wide."""
    height, width = image.shape[:2]
    for box in boxes:
        x1, y1, x2, y2 = (int(v) for v in np.round(box))
        x1, y1 = min(x1, width - 1), min(y1, height - 1)
        x2, y2 = min(max(x2 - 1, x1), width - 1), min(max(y2 - 1, y1), height - 1)
        image[[y1, y2], x1 : x2 + 1] = value
        image[y1 : y2 + 1, [x1, x2]] = value


def drawn(
    image: np.ndarray,
    prediction: tuple[np.ndarray, ...],
    truth: tuple[np.ndarray, np.ndarray],
    class_names: Sequence[str],
) -> tuple[np.ndarray, str]:
    """`Method.draw`: detections with a score of 0.5 or more, and the objects, side by side.

    Args:
      image: uint8 `[H, W, 3]`, the canvas.
      prediction: boxes `[D, 4]`, scores `[D]`, labels `[D]` from 1 on, valid `[D]`, and the size of
        the image.
      truth: boxes `[n, 4]` on the canvas and labels `[n]` from 1 on.
      class_names: of the labels.
    """
    boxes, scores, labels, valid, _ = prediction
    real = np.asarray(valid, bool)
    detected = _detected(boxes[real], labels[real], scores[real])
    objects = _detected(truth[0], truth[1], np.ones(len(truth[1])))
    scale = max(1, -(-_WIDTH // image.shape[1]))
    parts = [
        draw(image, boxes, class_names, lowest=_LOWEST, scale=scale, scores=boxes is detected)
        for boxes in (detected, objects)
    ]
    is_drawn = detected.score >= _LOWEST
    names = [
        f"{class_names[number]} {score:.2f}"
        for number, score in zip(detected.category[is_drawn], detected.score[is_drawn], strict=True)
    ]
    there = ", ".join(class_names[number] for number in objects.category) or "nothing"
    return np.concatenate(parts, axis=1), f"seen: {', '.join(names) or 'nothing'}; there: {there}"


def _detected(boxes: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> Detected:
    numbers = np.zeros(len(labels), int)
    return Detected(numbers, np.asarray(labels) - 1, np.asarray(boxes), np.asarray(scores))
