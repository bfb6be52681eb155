"""Average precision against pycocotools and VOC's definition."""

import numpy as np
import pytest

from kdjax.detection.average_precision import Detected, Objects, voc
from kdjax.detection.coco_precision import coco
from tests.detection import cases

NAMES = ["map_a", "map_b"]


def _sets(case) -> tuple[Objects, Detected]:
    names = ("image", "category", "box", "area", "crowd")
    objects = Objects(*(case[f"in_gt_{name}"] for name in names))
    detected = Detected(*(case[f"in_dt_{name}"] for name in (*names[:3], "score")))
    return objects, detected


@pytest.mark.parametrize("name", NAMES)
def test_coco(name):
    case = cases.arrays(name)
    result = coco(*_sets(case), len(case["out_class_ap"]))
    cases.close(list(result.stats.values()), case["out_stats"])
    cases.close(result.class_ap, case["out_class_ap"])
    cases.close(result.precision, case["out_precision"])
    cases.close(result.recall, case["out_recall"])


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_voc(name, inclusive):
    case, ending = cases.arrays(name), "_plus1" if inclusive else ""
    result = voc(*_sets(case), len(case["out_class_ap"]), inclusive=inclusive)
    for rule, values in (("07", result.ap07), ("10", result.ap10)):
        expected = case[f"out_voc{rule}_ap{ending}"]
        np.testing.assert_allclose(values, expected, rtol=1e-12)
        np.testing.assert_allclose(np.nanmean(values), case[f"out_voc{rule}_map{ending}"])


def test_perfect_detections_and_none():
    objects = Objects(
        image=np.array([0, 0, 3]),
        category=np.array([0, 1, 0]),
        box=np.array([[0, 0, 10, 10], [5, 5, 50, 60], [1, 2, 100, 120.0]]),
        area=np.array([100, 2475, 11682.0]),
        ignored=np.zeros(3, int),
    )
    perfect = Detected(objects.image, objects.category, objects.box, np.array([0.9, 0.8, 0.7]))
    result = coco(objects, perfect, 2)
    assert all(value == pytest.approx(1) for name, value in result.stats.items() if name != "AR_1")
    np.testing.assert_allclose(voc(objects, perfect, 2).ap10, 1)
    nothing = Detected(*(leaf[:0] for leaf in perfect))
    assert coco(objects, nothing, 2).stats["AP"] == 0
    np.testing.assert_array_equal(voc(objects, nothing, 2).ap07, 0)
