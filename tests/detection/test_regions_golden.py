"""ROIAlign, proposals, samples, losses and detections against torchvision's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.data.objects import image_transform
from kdjax.detection import box_heads, matching, region_proposals, roi_align
from kdjax.detection.detector import with_epsilon
from kdjax.detection.regions import Samples, Truths
from kdjax.models import layers
from tests.detection import cases

EVERYTHING = 2**20


@pytest.mark.parametrize("name", ["7x7", "3x5_s1", "adaptive", "aligned"])
def test_roi_align(name):
    case, hyper = cases.arrays(f"det_roialign_{name}"), cases.hyper(f"det_roialign_{name}")

    @jax.jit
    def pooled(features):
        both = jnp.stack(
            [
                roi_align.roi_align(
                    image,
                    case["in_rois"],
                    tuple(hyper["output"]),
                    scale=hyper["spatial_scale"],
                    sampling_ratio=hyper["sampling_ratio"],
                    aligned=hyper["aligned"],
                )
                for image in features
            ]
        )
        output = both[case["in_batch"], np.arange(len(case["in_rois"]))]
        return (output * case["in_w"]).sum(), output

    with jax.enable_x64(True):
        (_, output), gradient = jax.value_and_grad(pooled, has_aux=True)(jnp.asarray(case["in_x"]))
        cases.close(output, case["out_y"])
        cases.close(gradient, case["grad_x"])


def test_multi_scale_roi_align():
    case, hyper = cases.arrays("det_multiscale"), cases.hyper("det_multiscale")
    boxes = case["in_boxes0"]
    single = roi_align.region_levels(boxes.astype(np.float32), 4)
    np.testing.assert_array_equal(single, case["out_levels_f32"])
    with jax.enable_x64(True):
        np.testing.assert_array_equal(roi_align.region_levels(boxes, 4), case["out_levels"])
        maps = [jnp.asarray(case[f"in_map{i}"][0]) for i in range(4)]
        side, height = hyper["output"], hyper["image"][0]
        pool = jax.jit(roi_align.multi_scale_roi_align, static_argnums=(2, 3))
        cases.close(pool(maps, jnp.asarray(boxes), (side, side), height), case["out_y"])


def test_frozen_batch_norm():
    case = cases.arrays("det_frozen_bn")
    variables = {
        "params": {"scale": case["in_weight"], "bias": case["in_bias"]},
        "batch_stats": {"mean": case["in_mean"], "var": case["in_var"]},
    }
    with jax.enable_x64(True):
        for name, epsilon in (("out_eps_1e-05", 1e-5), ("out_eps_0", 0)):
            norm = layers.BatchNorm(dtype=np.float64, epsilon=epsilon)
            cases.close(norm.apply(variables, case["in_x"], train=False), case[name])
        shifted = variables | {"batch_stats": with_epsilon(variables["batch_stats"], 0)}
        norm = layers.BatchNorm(dtype=np.float64)
        cases.close(norm.apply(shifted, case["in_x"], train=False), case["out_eps_0"])


def test_proposals():
    case, hyper = cases.arrays("det_proposals"), cases.hyper("det_proposals")
    with jax.enable_x64(True):
        propose = functools.partial(
            region_proposals.propose,
            anchors=case["in_anchors"],
            per_level=case["in_per_level"].tolist(),
            before=hyper["pre_nms_top_n"],
            after=hyper["post_nms_top_n"],
            threshold=hyper["nms_thresh"],
        )
        images = case["in_objectness"], case["in_deltas"], case["in_image_sizes"]
        made = jax.jit(
            jax.vmap(lambda objectness, codes, size: propose(objectness, codes, image_size=size))
        )(*map(jnp.asarray, images))
        for i in range(2):
            assert made.valid[i].all()
            cases.close(made.boxes[i], case[f"out_boxes{i}"])
            cases.close(made.scores[i], case[f"out_scores{i}"])


def _truths(boxes, labels=None, size=5) -> Truths:
    """Padded to `size` objects."""
    missing = size - len(boxes)
    labels = np.ones(len(boxes), np.int32) if labels is None else labels
    return Truths(
        jnp.asarray(np.pad(boxes, ((0, missing), (0, 0)))),
        jnp.asarray(np.pad(labels, (0, missing))),
        jnp.asarray(np.arange(size) < len(boxes)),
    )


def _stacked(truths):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *truths)


def test_region_proposal_losses():
    case = cases.arrays("det_rpn_loss")

    @jax.jit
    def losses(objectness, codes, truths):
        anchors = jnp.asarray(case["in_anchors"])
        labels, targets = jax.vmap(region_proposals.targets, (None, 0))(anchors, truths)
        sample = functools.partial(matching.sample, size=EVERYTHING, positive_fraction=0.5)
        keys = jax.random.split(jax.random.key(0), len(labels))
        positive, negative = jax.vmap(sample)(keys, labels == 1, labels == 0)
        sums = jax.vmap(region_proposals.loss_sums)(objectness, codes, targets, positive, negative)
        count = sums.count.sum()
        classification, regression = (
            sums.classification.sum() / count,
            sums.regression.sum() / count,
        )
        return classification + regression, (classification, regression, labels, targets)

    with jax.enable_x64(True):
        truths = _stacked([_truths(case[f"in_gt{i}"]) for i in range(3)])
        inputs = jnp.asarray(case["in_objectness"]), jnp.asarray(case["in_deltas"])
        (_, (classification, regression, labels, targets)), gradients = jax.value_and_grad(
            losses, (0, 1), has_aux=True
        )(*inputs, truths)
        np.testing.assert_array_equal(labels, case["out_labels"])
        cases.close(targets, case["out_targets"])
        cases.close(classification, case["out_loss_objectness"])
        cases.close(regression, case["out_loss_box"])
        cases.close(gradients[0], case["grad_objectness"])
        cases.close(gradients[1], case["grad_deltas"])


def test_box_head_losses():
    case = cases.arrays("det_roi_loss")
    size = len(case["in_labels"])

    @jax.jit
    def losses(logits, codes):
        samples = Samples(
            boxes=None,
            labels=case["in_labels"],
            targets=case["in_targets"],
            truths=None,
            added=None,
            valid=jnp.ones(size, bool),
        )
        sums = box_heads.loss_sums(logits, codes.reshape(size, -1, 4), samples)
        parts = sums.classification / sums.count, sums.regression / sums.count
        return sum(parts), parts

    with jax.enable_x64(True):
        inputs = jnp.asarray(case["in_logits"]), jnp.asarray(case["in_boxes"])
        (_, parts), gradients = jax.value_and_grad(losses, (0, 1), has_aux=True)(*inputs)
        cases.close(parts[0], case["out_loss_class"])
        cases.close(parts[1], case["out_loss_box"])
        cases.close(gradients[0], case["grad_logits"])
        cases.close(gradients[1], case["grad_boxes"])


def test_training_regions():
    case = cases.arrays("det_roi_samples")
    with jax.enable_x64(True):
        truths = [_truths(case[f"in_gt{i}"], case[f"in_gt_labels{i}"]) for i in range(2)]
        proposals = jnp.stack([case["in_proposals0"], case["in_proposals1"]])
        sample = functools.partial(
            box_heads.sample_regions, size=EVERYTHING, positive_fraction=0.25
        )
        made = jax.jit(jax.vmap(sample))(
            jax.random.split(jax.random.key(0)),
            proposals,
            jnp.ones(proposals.shape[:2], bool),
            _stacked(truths),
        )
        for i in range(2):
            samples = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i])[made.valid[i]], made)
            cases.close(samples.boxes, case[f"out_rois{i}"])
            cases.close(samples.targets, case[f"out_targets{i}"])
            np.testing.assert_array_equal(samples.labels, case[f"out_labels{i}"])
            np.testing.assert_array_equal(samples.truths, case[f"out_matched{i}"])
            assert samples.added.sum() == len(case[f"in_gt{i}"])


def test_detections():
    case, hyper = cases.arrays("det_postprocess"), cases.hyper("det_postprocess")
    with jax.enable_x64(True):
        detect = functools.partial(
            box_heads.detect,
            image_size=jnp.asarray(hyper["image"]),
            score=hyper["score_thresh"],
            threshold=hyper["nms_thresh"],
            count=hyper["detections_per_img"],
            smallest=hyper["min_size"],
            weights=hyper["weights"],
        )
        halves = [
            case[name].reshape(2, 40, *shape)
            for name, shape in (("in_logits", (6,)), ("in_codes", (6, 4)), ("in_proposals", (4,)))
        ]
        made = jax.jit(jax.vmap(detect))(*halves, jnp.ones((2, 40), bool))
        for i in range(2):
            assert made.valid[i].all()
            cases.close(made.boxes[i], case[f"out_boxes{i}"])
            cases.close(made.scores[i], case[f"out_scores{i}"])
            np.testing.assert_array_equal(made.labels[i], case[f"out_labels{i}"])


def test_image_transform():
    case, hyper = cases.arrays("det_transform"), cases.hyper("det_transform")
    images = [case[f"in_image{i}"].astype(np.float64) for i in range(2)]
    batch, sizes = image_transform.transform(
        images,
        np.array(hyper["mean"]),
        np.array(hyper["std"]),
        hyper["min_size"],
        hyper["max_size"],
    )
    cases.close(batch, case["out_batch"])
    np.testing.assert_array_equal(sizes, case["out_sizes"])
    for i, image in enumerate(images):
        boxes = case[f"in_boxes{i}"].astype(np.float64)
        scaled = image_transform.scale_boxes(boxes, image.shape[:2], sizes[i])
        cases.close(scaled, case[f"out_boxes{i}"])
        back = image_transform.scale_boxes(scaled, sizes[i], image.shape[:2])
        cases.close(back, case[f"out_back{i}"])
    shapes = [image_transform.resized_shape(*shape, 800, 1333) for shape in case["in_shapes"]]
    np.testing.assert_array_equal(shapes, case["out_shapes"])
