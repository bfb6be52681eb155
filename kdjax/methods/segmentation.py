"""Segmentation: networks that learn the class of every pixel."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from kdjax import numerics
from kdjax.errors import UserError
from kdjax.methods import base, joint_augmentation
from kdjax.methods.registry import register
from kdjax.methods.segmentation_evaluation import SEGMENTATION
from kdjax.models import Cohort, Form
from kdjax.segmentation import pictures
from kdjax.segmentation.augment import Augmentation, augmenter
from kdjax.segmentation.deeplab import DeepLabV3, deeplab
from kdjax.segmentation.losses import pixel_cross_entropy, pixel_weights, weighted_means
from kdjax.settings import setting


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """`config.segmentation`."""

    output_stride: int = setting(
        8, "pixels of the image per pixel of the last feature map, along one side", at_least=1
    )
    rate: int = setting(12, "smallest of the pyramid's three dilations, r, 2 r, 3 r", at_least=1)
    width: int = setting(256, "channels of the head", at_least=1)
    align_corners: bool = setting(False, "how logits are resized: corner pixels keep their places")
    auxiliary_weight: float = setting(
        0.4, "of the auxiliary head's loss; 0: there is no such head", at_least=0
    )
    dropout: float = setting(0.5, "behind the pyramid", at_least=0, below=1)
    head_dropout: float = setting(0.0, "before the logits", at_least=0, below=1)
    auxiliary_dropout: float = setting(0.1, "before the auxiliary logits", at_least=0, below=1)
    class_weights: tuple[float, ...] = setting((), "in the loss; (): 1 for all", at_least=0)
    crop: tuple[int, ...] = setting((512, 512), "height and width that are trained on", at_least=1)
    smallest_scale: float = setting(0.5, "of images, before they are cropped", above=0)
    largest_scale: float = setting(2.0, "at least the smallest", above=0)
    scale_step: float = setting(0.1, "of the scales that are drawn; 0: any between", at_least=0)
    flip: bool = setting(True, "every second image is mirrored left to right")

    def __post_init__(self) -> None:
        if len(self.crop) != 2:
            raise ValueError(f"crop={tuple(self.crop)}: give height and width")
        if self.largest_scale < self.smallest_scale:
            raise ValueError(
                f"largest_scale={self.largest_scale} is less than smallest_scale="
                f"{self.smallest_scale}"
            )


def _check_config(config: ConfigDict) -> None:
    """Raises `UserError` for settings that have no effect on images with masks."""
    joint_augmentation.check(config, "segmentation", "masks")


@register(
    "segmentation",
    settings=Segmentation,
    masks=True,
    transfers=True,
    check_config=_check_config,
    source="Chen et al. 2017, arXiv 1706.05587; torchvision models/segmentation; CIRKD",
    paper="MixSKD's ResNet-50: mIoU VOC 78.78, ADE20K 42.37, COCO-Stuff 37.12",
)
def segmentation(
    cohort: Cohort, settings: Segmentation, *, axis_name: str | None = None
) -> base.Method:
    """DeepLabV3 on the stages of every network: cross entropy of pixels, and of an auxiliary head.

    Args:
      cohort: the networks, whose classifiers are left out.
      settings: see `Segmentation`.
      axis_name: the mapped device axis, over which pixels are averaged.

    Raises:
      UserError: networks that cannot have the output stride; weights for another number of classes.
    """
    options = {
        "output_stride": settings.output_stride,
        "rate": settings.rate,
        "width": settings.width,
        "auxiliary": int(settings.auxiliary_weight > 0),
        "align_corners": int(settings.align_corners),
    }
    dropouts = {
        name: getattr(settings, name) for name in ("dropout", "head_dropout", "auxiliary_dropout")
    }
    members = tuple(deeplab(network, **options).clone(**dropouts) for network in cohort.networks)
    classes, given = cohort.networks[0].num_classes, len(settings.class_weights)
    if given not in (0, classes):
        raise UserError(
            f"config.segmentation.class_weights has {given} numbers; give {classes}, one per class"
        )
    cohort = Cohort(members)

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        _check_pooled(members[0], batch["image"], axis_name)
        variables = {"params": params["cohort"], "batch_stats": model_state["batch_stats"]}
        outputs, updated = cohort.apply(
            variables,
            batch["image"],
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        masks, count = batch["masks"], len(outputs)
        logits = [output.logits for output in outputs]
        if settings.auxiliary_weight:
            logits += [output.auxiliary for output in outputs]
        right = [output.logits.argmax(-1) == masks for output in outputs]
        weights = pixel_weights(masks, class_weights=settings.class_weights)
        counted = pixel_weights(masks)
        terms = weighted_means(
            [(pixel_cross_entropy(x, masks), weights) for x in logits]
            + [(x.astype(jnp.float32), counted) for x in right],
            axis_name=axis_name,
        )
        metrics = {"cross_entropy": numerics.total(terms[:count])}
        total = metrics["cross_entropy"]
        if settings.auxiliary_weight:
            metrics["auxiliary"] = numerics.total(terms[count:-count])
            total += settings.auxiliary_weight * metrics["auxiliary"]
        for index, accuracy in enumerate(terms[-count:]):
            metrics[f"network_{index}/pixel_accuracy"] = accuracy
        return total, (model_state | updated, metrics)

    sizes = {"height": settings.crop[0], "width": settings.crop[1]}
    return base.cohort_method(
        cohort,
        loss,
        inputs=_inputs,
        form=Form("deeplab", tuple(options.items())),
        augment=augmenter(
            Augmentation(
                **sizes,
                smallest=settings.smallest_scale,
                largest=settings.largest_scale,
                step=settings.scale_step,
                flip=settings.flip,
            )
        ),
        evaluation=SEGMENTATION,
        draw=pictures.drawn,
    )


def _check_pooled(network: DeepLabV3, images: jax.Array, axis_name: str | None) -> None:
    """Raises `UserError` if BatchNorm behind the pyramid's mean sees one value per channel."""
    shared = axis_name is not None and network.network.axis_name is not None
    count = len(images) * (jax.lax.axis_size(axis_name) if shared else 1)
    if count < 2:
        raise UserError(
            "config.batch_size: BatchNorm of the image's mean needs two images on a device, or "
            "on all of them with config.sync_batch_norm; set a larger config.batch_size"
        )


def _inputs(batch: base.Batch, key: jax.Array) -> base.Inputs:
    """The images, without a label of their own."""
    shown = base.plain_inputs(batch, key)
    return shown._replace(weights=jnp.zeros_like(shown.weights))
