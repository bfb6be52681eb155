"""Detection: networks that learn the boxes and the classes of objects."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from kdjax import numerics
from kdjax.data.objects.augmentation import Augmentation
from kdjax.data.preprocessing import Canvas
from kdjax.detection import detection as library
from kdjax.detection import pictures
from kdjax.detection.detector import Detector, held, rcnn, trained
from kdjax.detection.regions import Truths
from kdjax.detection.settings import Detection as DetectorSettings
from kdjax.methods import base, joint_augmentation
from kdjax.methods.detection_evaluation import DETECTION, CanvasDetections
from kdjax.methods.registry import register
from kdjax.models import Cohort, Form
from kdjax.settings import setting

_HEADS = {"faster_rcnn": 1, "cascade": 3}


@dataclasses.dataclass(frozen=True)
class Detection(DetectorSettings):
    """`config.detection`."""

    form: str = setting("faster_rcnn", "one box head, or a cascade of three", choices=tuple(_HEADS))
    batch_norm: str = setting(
        "frozen",
        "BatchNorm of the network: 'frozen'; 'affine': scale and bias learn; 'trained': statistics "
        "of the batch",
        choices=("frozen", "affine", "trained"),
    )
    anchor: int = setting(
        32, "side in pixels of the smallest anchors; it doubles from level to level", at_least=1
    )
    features: int = setting(256, "channels of the pyramid", at_least=1)
    hidden: int = setting(1024, "features of the two hidden layers of a box head", at_least=1)
    min_sizes: tuple[int, ...] = setting(
        (800,), "short sides of images, one of which is drawn; the largest in tests", at_least=1
    )
    max_size: int = setting(1333, "long side of images, at most", at_least=1)
    crop: float = setting(
        1.0, "smallest share of either side that is left of a training image", above=0, at_most=1
    )
    flip: float = setting(
        0.5, "probability that left and right change places", at_least=0, at_most=1
    )

    def __post_init__(self) -> None:
        if not self.min_sizes:
            raise ValueError("min_sizes=(): give at least one")
        if self.batch_norm == "trained" and self.trained_stages < 5:
            raise ValueError(
                f"batch_norm='trained' with trained_stages={self.trained_stages}: statistics "
                "change in all of the network; set trained_stages=5, or batch_norm='affine'"
            )


def _check_config(config: ConfigDict) -> None:
    """Raises `UserError` for settings that do not go with images and boxes."""
    joint_augmentation.check(config, "detection", "boxes")


def _augmentation(settings: Detection) -> Augmentation:
    return Augmentation(settings.crop, settings.flip, settings.min_sizes, settings.max_size)


@register(
    "detection",
    settings=Detection,
    objects=_augmentation,
    transfers=True,
    check_config=_check_config,
    source="Ren et al., NeurIPS 2015, arXiv 1506.01497; Cai and Vasconcelos, CVPR 2018, arXiv "
    "1712.00726; torchvision models/detection",
    paper="MixSKD's ResNet-50, Cascade: COCO mAP 41.6; HSSAKD's ResNet-18: VOC 78.45",
)
def detection(cohort: Cohort, settings: Detection, *, axis_name: str | None = None) -> base.Method:
    """Faster or Cascade R-CNN with a feature pyramid on the stages of every network.

    Args:
      cohort: the networks, whose classifiers are left out.
      settings: see `Detection`.
      axis_name: the mapped device axis, over which samples are counted.

    Raises:
      UserError: networks with other stages than four at strides of 4 to 32.
    """
    options = {
        "heads": _HEADS[settings.form],
        "anchor": settings.anchor,
        "features": settings.features,
        "hidden": settings.hidden,
    }
    members = tuple(rcnn(network, **options) for network in cohort.networks)
    learns: dict[str, Any] = {"trained_stages": settings.trained_stages}
    learns["batch_norm"] = settings.batch_norm != "frozen"

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        keys = base.image_keys(key, len(batch["image"]), axis_name)
        truths = Truths(batch["boxes"], batch["classes"], batch["valid"])
        metrics: base.Metrics = {}
        totals, statistics = [], {}
        for index, detector in enumerate(members):
            variables = base.network_variables(params, model_state, index)
            variables |= {"params": held(variables["params"], **learns)}
            outputs, updated = detector.apply(
                variables,
                batch["image"],
                settings.batch_norm == "trained",
                method="first_stage",
                mutable=["batch_stats"],
            )
            terms = library.losses_of(
                detector,
                variables,
                outputs,
                batch["image"].shape[1:3],
                batch["sizes"],
                truths,
                keys,
                settings,
                axis_name,
            )
            totals.append(numerics.total(terms.values()))
            metrics |= {f"network_{index}/{name}": value for name, value in terms.items()}
            statistics[f"network_{index}"] = updated["batch_stats"]
        return numerics.total(totals), (model_state | {"batch_stats": statistics}, metrics)

    return base.cohort_method(
        Cohort(members),
        loss,
        predict=functools.partial(_predict, members, settings),
        optimizer=functools.partial(_optimizer, learns),
        inputs=_inputs,
        form=Form("rcnn", tuple(options.items())),
        evaluation=DETECTION,
        draw=pictures.drawn,
    )


def _predict(
    members: tuple[Detector, ...],
    settings: Detection,
    params: base.Params,
    model_state: base.ModelState,
    images: Canvas,
) -> dict[str, CanvasDetections]:
    """'network_0', ...: what every network detects."""
    predictions = {}
    for index, detector in enumerate(members):
        variables = base.network_variables(params, model_state, index)
        made = library.detections(detector, variables, images.pixels, images.sizes, settings)
        predictions[f"network_{index}"] = CanvasDetections(
            made.boxes, made.scores, made.labels, made.valid, images.sizes
        )
    return predictions


def _optimizer(
    learns: dict[str, Any], tx: optax.GradientTransformation
) -> optax.GradientTransformation:
    """`tx`, by which parameters that do not learn stay as they are: weight decay is part of it."""

    def still(params: base.Params) -> base.Params:
        of_networks = {
            name: jax.tree.map(lambda learns_it: not learns_it, trained(tree, **learns))
            for name, tree in params["cohort"].items()
        }
        return {"cohort": of_networks}

    return optax.chain(tx, optax.masked(optax.set_to_zero(), still))


def _inputs(batch: base.Batch, key: jax.Array) -> base.Inputs:
    """The images with their boxes drawn in, and how many there are."""
    shown = base.plain_inputs(batch, key)
    images = np.array(batch["image"])
    counts = np.asarray(batch["valid"]).sum(1)
    for image, boxes, valid in zip(images, batch["boxes"], batch["valid"], strict=True):
        pictures.outline(image, np.asarray(boxes)[np.asarray(valid)], image.max())
    notes = [f"{count} object{'' if count == 1 else 's'}" for count in counts]
    return base.Inputs(jnp.asarray(images), shown.labels, jnp.zeros_like(shown.weights), notes)
