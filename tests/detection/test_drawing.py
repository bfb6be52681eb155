"""Pictures of detections."""

import numpy as np

from kdjax.detection.average_precision import Detected
from kdjax.detection.drawing import draw


def test_boxes_are_drawn_where_they_are():
    detected = Detected(
        image=np.zeros(2, int),
        category=np.array([1, 0]),
        box=np.array([[5, 40, 30, 60], [50, 10, 70, 30.0]]),
        score=np.array([0.9, 0.3]),
    )
    pixels = np.zeros((64, 80, 3), np.uint8)
    picture = draw(pixels, detected, ["a", "b"], scale=2)
    assert picture.shape == (128, 160, 3) and not pixels.any()
    rows, columns = np.nonzero(picture.any(-1))
    # The frame of the first alone: the other's score is too low.
    assert (rows.min(), rows.max()) == (80, 119)
    assert (columns.min(), columns.max()) >= (10, 59) and columns.max() < 100
    assert picture[119, 40].any() and not picture[100, 56].any()
    both = draw(pixels, detected, ["a", "b"], lowest=0.2)
    assert both[29, 60].any()


def test_names_stand_alone_without_scores():
    detected = Detected(
        image=np.zeros(1, int),
        category=np.zeros(1, int),
        box=np.array([[5, 20, 70, 60.0]]),
        score=np.array([0.9]),
    )
    pixels = np.zeros((64, 80, 3), np.uint8)
    filled = [
        draw(pixels, detected, ["a"], scores=scores).any(-1).sum() for scores in (True, False)
    ]
    assert filled[0] > filled[1] > 0
