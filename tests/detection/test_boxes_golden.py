"""Boxes, anchors, matching and suppression against torchvision's."""

import functools

import jax
import numpy as np
import pytest

from kdjax.detection import anchors, boxes, matching, suppression
from tests.detection import cases


def test_boxes():
    case, image_size = cases.arrays("det_boxes"), np.array(cases.hyper("det_boxes")["image"])
    with jax.enable_x64(True):
        cases.close(boxes.area(case["in_a"]), case["out_area_a"])
        cases.close(boxes.iou(case["in_a"], case["in_b"]), case["out_iou"])
        cases.close(boxes.clip(case["in_wild"], image_size), case["out_clipped"])
        for smallest in ("1e-3", "30"):
            kept = boxes.has_sides(case["out_clipped"], float(smallest))
            np.testing.assert_array_equal(np.flatnonzero(kept), case[f"out_kept_{smallest}"])


@pytest.mark.parametrize("name", ["det_coder_rpn", "det_coder_roi"])
def test_coder(name):
    case, weights = cases.arrays(name), cases.hyper(name)["weights"]
    assert cases.hyper(name)["clip"] == pytest.approx(boxes.LARGEST_LOG_RATIO, rel=1e-15)
    proposals = case["in_proposals"]
    with jax.enable_x64(True):
        cases.close(boxes.encode(case["in_gt"], proposals, weights), case["out_encoded"])
        codes = case["in_codes"].reshape(len(proposals), -1, 4)
        decoded = boxes.decode(codes, proposals[:, None], weights)
        cases.close(decoded.reshape(len(proposals), -1), case["out_decoded"])


@pytest.mark.parametrize("name", ["det_anchors_default", "det_anchors_floor"])
def test_anchors(name):
    case, hyper = cases.arrays(name), cases.hyper(name)
    made = anchors.anchors(hyper["image"], hyper["grids"], hyper["sizes"], hyper["ratios"])
    np.testing.assert_array_equal(made, case["out_anchors"])
    np.testing.assert_array_equal(
        anchors.strides(hyper["image"], hyper["grids"]), case["out_strides"]
    )
    for i, (sizes, ratios) in enumerate(zip(hyper["sizes"], hyper["ratios"], strict=True)):
        np.testing.assert_array_equal(anchors.cell_anchors(sizes, ratios), case[f"out_cell_{i}"])


@pytest.mark.parametrize("name", ["det_matcher_rpn", "det_matcher_roi"])
def test_matcher(name):
    case, hyper = cases.arrays(name), cases.hyper(name)
    settings = {
        "high": hyper["high"],
        "low": hyper["low"],
        "low_quality_matches": hyper["allow_low_quality_matches"],
    }
    match = jax.jit(functools.partial(matching.match, **settings))
    with jax.enable_x64(True):
        cases.close(boxes.iou(case["in_gt"], case["in_boxes"]), case["in_quality"])
        for kind in ("", "_hand", "_lonely"):
            quality = case[f"in_quality{kind}"]
            valid = np.ones(len(quality), bool)
            matches = match(quality, valid)
            np.testing.assert_array_equal(matches, case[f"out_matches{kind}"])
            # Padding changes nothing, though it overlaps nothing.
            padded = np.concatenate([quality, np.zeros_like(quality[:2])])
            valid = np.append(valid, [False, False])
            matches = match(padded, valid)
            np.testing.assert_array_equal(matches, case[f"out_matches{kind}"])


def test_match_without_ground_truths_is_background():
    quality, valid = np.zeros((2, 5)), np.zeros(2, bool)
    matches = matching.match(quality, valid, high=0.7, low=0.3, low_quality_matches=True)
    np.testing.assert_array_equal(matches, [matching.BACKGROUND] * 5)


@jax.jit
def _suppress(boxes, scores, valid, thresholds, groups=None):
    """For every threshold the mask of what is kept, and its indices by falling score."""

    def one(threshold):
        kept = suppression.non_maximum_suppression(boxes, scores, valid, threshold, groups)
        return kept, *suppression.best(scores, kept, len(scores))

    return jax.vmap(one)(thresholds)


@pytest.mark.parametrize("name", ["det_nms", "det_nms_ties", "det_nms_groups"])
def test_suppression(name):
    case = cases.arrays(name)
    with jax.enable_x64(True):
        thresholds = cases.hyper(name)["thresholds"]
        scores = case["in_scores"]
        valid, groups = np.ones(len(scores), bool), case.get("in_groups")
        suppressed = _suppress(case["in_boxes"], scores, valid, np.array(thresholds), groups)
        for threshold, kept, indices, real in zip(thresholds, *suppressed, strict=True):
            np.testing.assert_array_equal(indices[real], case[f"out_keep_{threshold}"])
            assert kept.sum() == real.sum()


def test_suppression_ignores_padding():
    case = cases.arrays("det_nms")
    size = len(case["in_scores"])
    valid = np.arange(size + 40) < size
    padded = np.concatenate([case["in_boxes"], case["in_boxes"][:40]])
    scores = np.concatenate([case["in_scores"], np.full(40, 2.0)])
    with jax.enable_x64(True):
        kept, *_ = _suppress(padded, scores, valid, np.array([0.5]))
    np.testing.assert_array_equal(np.flatnonzero(kept[0]), np.sort(case["out_keep_0.5"]))


def test_sampler_counts():
    case = cases.arrays("det_sampler_counts")
    kinds = [np.repeat([1, 0, -1], counts) for counts in case["in_counts"]]
    for kind in kinds:
        np.random.RandomState(0).shuffle(kind)

    @jax.jit
    def sampled(key):
        return [
            matching.sample(
                key, kind == 1, kind == 0, size=int(size), positive_fraction=float(fraction)
            )
            for kind, (size, fraction) in zip(kinds, case["in_settings"], strict=True)
        ]

    for kind, chosen, expected in zip(
        kinds, sampled(jax.random.key(0)), case["out_counts"], strict=True
    ):
        assert [int(mask.sum()) for mask in chosen] == expected.tolist()
        for mask, wanted in zip(chosen, (1, 0), strict=True):
            assert (kind[np.asarray(mask)] == wanted).all()


def test_samples_differ_with_the_key_and_are_fair():
    negative = np.arange(40) < 20
    keys = jax.random.split(jax.random.key(0), 400)
    choose = jax.vmap(
        lambda key: matching.sample(key, ~negative, negative, size=10, positive_fraction=0.5)
    )
    positives, negatives = choose(keys)
    counts = np.asarray(positives.sum(0) + negatives.sum(0))
    # 5 of 20 in 400 draws: 100 each, with a standard deviation of 8.7.
    assert (np.abs(counts - 100) < 45).all()


def test_packed_keeps_the_order():
    indices, valid = matching.packed(np.array([False, True, False, True, True]), 4)
    np.testing.assert_array_equal(np.asarray(indices)[np.asarray(valid)], [1, 3, 4])
    assert valid.tolist() == [True, True, True, False]
