"""Semantic segmentation: DeepLabV3, its losses and measures, masks on disk, joint augmentation.

The pixels of a mask are classes from 0 on; losses and measures leave out those that are `IGNORED`.
"""

from kdjax.data.splits import IGNORED
from kdjax.segmentation.deeplab import DeepLabV3, SegmentationOutputs, deeplab
from kdjax.segmentation.losses import (
    pixel_cross_entropy,
    pixel_weights,
    weighted_mean,
    weighted_means,
)
from kdjax.segmentation.measures import (
    class_accuracies,
    confusion,
    intersection_over_union,
    mean_iou,
    pixel_accuracy,
)
from kdjax.segmentation.resize import bilinear

__all__ = [
    "IGNORED",
    "DeepLabV3",
    "SegmentationOutputs",
    "bilinear",
    "class_accuracies",
    "confusion",
    "deeplab",
    "intersection_over_union",
    "mean_iou",
    "pixel_accuracy",
    "pixel_cross_entropy",
    "pixel_weights",
    "weighted_mean",
    "weighted_means",
]
