"""Golden detectors: built, filled and run."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import models
from kdjax.detection import detection
from kdjax.detection.detector import Detector, held
from kdjax.detection.regions import Truths
from kdjax.detection.settings import Detection
from kdjax.interop.torch import import_state_dict
from tests.detection import cases
from tests.golden import OPTIMIZED

EVERYTHING = 2**20
PADDED = 5  # objects of an image


class GoldenDetector(NamedTuple):
    """A detector, its filled state dict and variables, what it is shown, and its settings."""

    record: dict
    arrays: dict[str, np.ndarray]
    module: Detector
    state: dict[str, np.ndarray]
    variables: Any
    images: np.ndarray
    truths: Truths
    settings: Detection


@functools.cache
def load(name: str, dtype: type) -> GoldenDetector:
    """The detector of `golden/transfer/<name>`, its arrays in `dtype`."""
    record, arrays, hyper = cases.record(name), cases.arrays(name), cases.hyper(name)
    depth = name.split("_")[2]
    network = models.create(depth, num_classes=1, dtype=dtype)
    module = Detector(network, num_classes=hyper["classes"] - 1, dtype=dtype)
    state = cases.weights(record["state_dict"], record["fill_scale"])
    variables, _ = import_state_dict(module, state)
    recipe = record["x"]
    images = np.random.RandomState(recipe["seed"]).standard_normal(recipe["shape"])
    settings = Detection(
        trained_stages=5,
        train_candidates=hyper["pre_nms_top_n"],
        train_proposals=hyper["post_nms_top_n"],
        test_candidates=hyper["pre_nms_top_n"],
        test_proposals=hyper["post_nms_top_n"],
        anchor_samples=EVERYTHING,
        region_samples=EVERYTHING,
    )
    return GoldenDetector(
        record,
        arrays,
        module,
        state,
        jax.tree.map(lambda leaf: np.asarray(leaf, dtype), variables),
        images.astype(np.float32).astype(dtype),
        _truths(arrays, dtype),
        settings,
    )


def _truths(arrays: dict[str, np.ndarray], dtype: type) -> Truths:
    boxes, labels = np.zeros((2, PADDED, 4), dtype), np.zeros((2, PADDED), np.int32)
    valid = np.zeros((2, PADDED), bool)
    for i in range(2):
        count = len(arrays[f"in_gt{i}"])
        boxes[i, :count], labels[i, :count] = arrays[f"in_gt{i}"], arrays[f"in_gt_labels{i}"]
        valid[i, :count] = True
    return Truths(boxes, labels, valid)


def sizes(golden: GoldenDetector) -> np.ndarray:
    """Heights and widths of the images, which are not padded."""
    return np.array([golden.images.shape[1:3]] * len(golden.images))


def _jit(golden: GoldenDetector, function):
    double = golden.images.dtype == np.float64
    return jax.jit(function, compiler_options=OPTIMIZED if double else None)


def evaluated(golden: GoldenDetector) -> dict[str, jax.Array]:
    """All that the golden case has of a detector in evaluation mode."""
    module, images = golden.module, jnp.asarray(golden.images)

    def run(variables, images):
        maps, objectness, codes = module.apply(variables, images, method="first_stage")
        anchors, per_level = module.anchors(images.shape[1:3], maps)
        proposals = detection.propose(
            objectness,
            codes,
            jnp.asarray(anchors, codes.dtype),
            jnp.asarray(sizes(golden)),
            per_level,
            golden.settings,
            training=False,
        )
        height, bound = images.shape[1], module.bind(variables)
        pooled = module.pool(maps, proposals.boxes[:, :3], height)[0]
        logits, box_codes = bound.second_stage(maps, proposals.boxes, height)
        made = detection.detections(
            module, variables, images, jnp.asarray(sizes(golden)), golden.settings
        )
        return maps, objectness, codes, proposals, pooled, logits, box_codes, made

    return _jit(golden, run)(golden.variables, images)


def trained(golden: GoldenDetector):
    """The losses of a step and the gradients of their sum."""

    def total(params, batch_stats, images, truths):
        variables = {"params": held(params, 5), "batch_stats": batch_stats}
        terms = detection.losses(
            golden.module,
            variables,
            images,
            jnp.asarray(sizes(golden)),
            truths,
            jax.random.split(jax.random.key(0), len(images)),
            golden.settings,
        )
        return sum(terms.values()), terms

    step = _jit(golden, jax.value_and_grad(total, has_aux=True))
    variables = golden.variables
    (_, terms), gradients = step(
        variables["params"], variables["batch_stats"], golden.images, golden.truths
    )
    return terms, gradients
