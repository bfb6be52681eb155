"""The losses of a detector, and its detections."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdjax import numerics
from kdjax.detection import box_heads, boxes, matching, region_proposals
from kdjax.detection.detector import Detector
from kdjax.detection.regions import Detections, LossSums, Proposals, Truths
from kdjax.detection.settings import Detection
from kdjax.models.outputs import outputs_of


class Cascade(NamedTuple):
    """The settings of one box head of a detector.

    Attributes:
      threshold: smallest overlap at which a region is an object, in training.
      code_weights: of the codes.
      loss_weight: of the head's losses.
    """

    threshold: float
    code_weights: Sequence[float]
    loss_weight: float


ONE = (Cascade(0.5, boxes.BOX_WEIGHTS, 1.0),)
# Cai and Vasconcelos 2018, section 4; weights of codes and losses as in mmdetection.
THREE = (
    Cascade(0.5, boxes.BOX_WEIGHTS, 1.0),
    Cascade(0.6, (20.0, 20.0, 10.0, 10.0), 0.5),
    Cascade(0.7, (30.0, 30.0, 15.0, 15.0), 0.25),
)


def cascade(detector: Detector) -> tuple[Cascade, ...]:
    """The settings of a detector's heads: one of Faster R-CNN, or three of Cascade R-CNN."""
    return {1: ONE, 3: THREE}[detector.heads]


def losses(
    detector: Detector,
    variables: Any,
    images: jax.Array,
    image_sizes: jax.Array,
    truths: Truths,
    keys: jax.Array,
    settings: Detection,
    axis_name: str | None = None,
) -> dict[str, jax.Array]:
    """The loss terms of a batch, whose sum is minimized.

    Every term is divided by the mean number of its samples per device, so that its mean over
    devices does not depend on their number.

    Args:
      detector: the network.
      variables: its variables.
      images: `[B, H, W, C]`, normalized and padded.
      image_sizes: `[B, 2]` heights and widths without padding.
      truths: objects, with a leading axis `[B]`.
      keys: `[B]` random keys of the images, for the choice of samples.
      settings: of the detector.
      axis_name: the mapped device axis, or None.

    Returns:
      'objectness', 'proposal_boxes', 'classification' and 'boxes'; of the second head also
      'classification2' and 'boxes2', and so on.
    """
    outputs = outputs_of(detector, variables, images, method="first_stage")
    return losses_of(
        detector,
        variables,
        outputs,
        images.shape[1:3],
        image_sizes,
        truths,
        keys,
        settings,
        axis_name,
    )


def losses_of(
    detector: Detector,
    variables: Any,
    outputs: tuple[Sequence[jax.Array], jax.Array, jax.Array],
    canvas: Sequence[int],
    image_sizes: jax.Array,
    truths: Truths,
    keys: jax.Array,
    settings: Detection,
    axis_name: str | None = None,
) -> dict[str, jax.Array]:
    """`losses`, from the outputs of the first stage.

    Args:
      detector, variables, image_sizes, truths, keys, settings, axis_name: as of `losses`.
      outputs: the result of `Detector.first_stage`.
      canvas: height and width of the padded images.
    """
    apply = functools.partial(outputs_of, detector, variables)
    maps, objectness, codes = outputs
    made, per_level = detector.anchors(canvas, maps)
    anchors = jnp.asarray(made, codes.dtype)
    keys = jax.vmap(lambda key: jax.random.split(key, 1 + detector.heads))(keys)

    def first(key: jax.Array, objectness: jax.Array, codes: jax.Array, truths: Truths) -> LossSums:
        labels, targets = region_proposals.targets(anchors, truths)
        positive, negative = matching.sample(
            key,
            labels == 1,
            labels == 0,
            size=settings.anchor_samples,
            positive_fraction=settings.anchor_positives,
        )
        return region_proposals.loss_sums(objectness, codes, targets, positive, negative)

    sums = jax.vmap(first)(keys[:, 0], objectness, codes, truths)
    terms = _means(sums, axis_name, ("objectness", "proposal_boxes"))
    proposals = propose(objectness, codes, anchors, image_sizes, per_level, settings, training=True)
    regions, valid = proposals.boxes, proposals.valid
    for number, stage in enumerate(cascade(detector)):
        sample = functools.partial(
            box_heads.sample_regions,
            size=settings.region_samples,
            positive_fraction=settings.region_positives,
            threshold=stage.threshold,
            weights=stage.code_weights,
        )
        samples = jax.vmap(sample)(keys[:, 1 + number], regions, valid, truths)
        logits, codes = apply(maps, samples.boxes, canvas[0], number, method="second_stage")
        sums_of = functools.partial(box_heads.loss_sums, beta=settings.box_beta)
        sums = jax.vmap(sums_of)(logits, codes, samples)
        ending = str(number + 1) if number else ""
        names = (f"classification{ending}", f"boxes{ending}")
        means = _means(sums, axis_name, names)
        terms |= {name: stage.loss_weight * value for name, value in means.items()}
        # The next head refines the boxes of this one, and adds the ground truths again.
        regions = refine(samples.boxes, codes, image_sizes, stage.code_weights)
        valid = samples.valid & ~samples.added & boxes.has_sides(regions, 1e-3)
    return terms


def _means(sums: LossSums, axis_name: str | None, names: Sequence[str]) -> dict[str, jax.Array]:
    """Both losses of a batch, divided by the mean number of samples per device."""
    count = sums.count.sum().astype(sums.classification.dtype)
    if axis_name is not None:
        count = jax.lax.pmean(count, axis_name)
    count = jnp.maximum(count, 1)
    return {
        names[0]: sums.classification.sum() / count,
        names[1]: sums.regression.sum() / count,
    }


def propose(
    objectness: jax.Array,
    codes: jax.Array,
    anchors: jax.Array,
    image_sizes: jax.Array,
    per_level: Sequence[int],
    settings: Detection,
    *,
    training: bool,
) -> Proposals:
    """The proposals of a batch, with a leading axis `[B]`."""
    one = functools.partial(
        region_proposals.propose,
        before=settings.train_candidates if training else settings.test_candidates,
        after=settings.train_proposals if training else settings.test_proposals,
        threshold=settings.proposal_overlap,
    )
    return jax.vmap(
        lambda objectness, codes, size: one(objectness, codes, anchors, size, per_level)
    )(objectness, codes, image_sizes)


def refine(
    regions: jax.Array, codes: jax.Array, image_sizes: jax.Array, weights: Sequence[float]
) -> jax.Array:
    """Applies the codes of a head with one box for all classes to its regions `[B, R, 4]`.

    The result has no gradient.
    """
    decoded = boxes.decode(jax.lax.stop_gradient(codes[:, :, 0]), regions, weights)
    return jax.vmap(boxes.clip)(decoded, image_sizes)


def detections(
    detector: Detector,
    variables: Any,
    images: jax.Array,
    image_sizes: jax.Array,
    settings: Detection,
) -> Detections:
    """The detections in a batch of images, with a leading axis `[B]`.

    Boxes are in pixels of `images`. The logits of several heads are averaged, as in mmdetection;
    the boxes are those of the last head.

    Args:
      detector: the network.
      variables: its variables.
      images: `[B, H, W, C]`, normalized and padded.
      image_sizes: `[B, 2]` heights and widths without padding.
      settings: of the detector.
    """
    apply = functools.partial(outputs_of, detector, variables)
    maps, objectness, codes = apply(images, method="first_stage")
    made, per_level = detector.anchors(images.shape[1:3], maps)
    anchors = jnp.asarray(made, codes.dtype)
    proposals = propose(
        objectness, codes, anchors, image_sizes, per_level, settings, training=False
    )
    regions, all_logits = proposals.boxes, []
    stages = cascade(detector)
    for number in range(len(stages)):
        if number:
            regions = refine(regions, codes, image_sizes, stages[number - 1].code_weights)
        logits, codes = apply(maps, regions, images.shape[1], number, method="second_stage")
        all_logits.append(logits)
    one = functools.partial(
        box_heads.detect,
        score=settings.score,
        threshold=settings.overlap,
        count=settings.detections,
        weights=stages[-1].code_weights,
    )
    logits = numerics.total(all_logits) / len(stages)
    return jax.vmap(one)(logits, codes, regions, proposals.valid, image_sizes)
