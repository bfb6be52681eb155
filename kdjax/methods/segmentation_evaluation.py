"""How networks for segmentation are measured over a split: by one confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.data.splits import IGNORED
from kdjax.methods.evaluation import Evaluation
from kdjax.segmentation import measures
from kdjax.segmentation.losses import pixel_cross_entropy


def _sums(
    logits: jax.Array, labels: jax.Array, mask: jax.Array, num_classes: int
) -> dict[str, jax.Array]:
    """'confusion' `[N, N]` and 'cross_entropy', of logits `[B, H, W, N]` and masks `[B, H, W]`."""
    labels = jnp.where(mask[:, None, None] > 0, labels, IGNORED)
    matrix = measures.confusion(logits.argmax(-1), labels, num_classes)
    return {"confusion": matrix, "cross_entropy": pixel_cross_entropy(logits, labels).sum()}


def _metrics(
    sums: Mapping[str, np.ndarray], images: float, class_names: Sequence[str]
) -> dict[str, float]:
    """Means over classes and pixels, and every class's overlap.

    'miou', 'pixel_accuracy', 'class_accuracy' (the mean over classes that are in the masks),
    'cross_entropy' (over pixels), 'iou/CLASS' of the classes that are in the masks or predicted,
    and 'absent_classes', how many are neither and count nowhere.
    """
    del images
    matrix = sums["confusion"]
    overlaps, accuracies = (
        measures.intersection_over_union(matrix),
        measures.class_accuracies(matrix),
    )
    known = accuracies[~np.isnan(accuracies)]
    return {
        "miou": measures.mean_iou(matrix),
        "pixel_accuracy": measures.pixel_accuracy(matrix),
        "class_accuracy": float(known.mean()) if known.size else 0.0,
        "cross_entropy": float(sums["cross_entropy"] / max(matrix.sum(), 1)),
        "absent_classes": float(np.isnan(overlaps).sum()),
        **{
            f"iou/{name}": float(value)
            for name, value in zip(class_names, overlaps, strict=True)
            if not np.isnan(value)
        },
    }


SEGMENTATION = Evaluation(_sums, _metrics, accuracy="miou", label="mIoU")
