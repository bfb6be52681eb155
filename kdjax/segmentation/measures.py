"""The confusion matrix of pixels, and the measures that are computed from it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.data.splits import IGNORED


def confusion(
    predictions: jax.Array, labels: jax.Array, num_classes: int, *, ignored: int = IGNORED
) -> jax.Array:
    """The confusion matrix of pixels.

    The matrix of a data set is the sum of those of its parts.

    Args:
      predictions: integers, 0 .. `num_classes` - 1.
      labels: integers of the same shape, 0 .. `num_classes` - 1 or `ignored`.
      num_classes: N.
      ignored: the label of ignored pixels.

    Returns:
      int32 `[N, N]`, `[true class, predicted class]`.
    """
    labels, predictions = labels.astype(jnp.int32).ravel(), predictions.astype(jnp.int32).ravel()
    places = jnp.where(labels == ignored, num_classes**2, num_classes * labels + predictions)
    counts = jnp.bincount(places, length=num_classes**2 + 1)[:-1]
    return counts.reshape(num_classes, num_classes).astype(jnp.int32)


def intersection_over_union(matrix: np.ndarray) -> np.ndarray:
    """Hits / (pixels of the class + pixels predicted as it - hits), of every class.

    Args:
      matrix: `[N, N]`, of `confusion`.

    Returns:
      float64 `[N]`; NaN for a class that is neither in the labels nor predicted.
    """
    hits, true, predicted = _counts(matrix)
    return _divided(hits, true + predicted - hits)


def mean_iou(matrix: np.ndarray, *, absent_as_zero: bool = False) -> float:
    """The mean of `intersection_over_union` over classes.

    Args:
      matrix: `[N, N]`, of `confusion`.
      absent_as_zero: whether a class that is neither in the labels nor predicted counts 0, as in
        CIRKD's code; otherwise it is left out, and the mean over no class is 0.
    """
    values = intersection_over_union(matrix)
    if absent_as_zero:
        return float(np.nan_to_num(values).mean())
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else 0.0


def class_accuracies(matrix: np.ndarray) -> np.ndarray:
    """Hits / pixels of the class, float64 `[N]`; NaN for a class that is not in the labels."""
    hits, true, _ = _counts(matrix)
    return _divided(hits, true)


def pixel_accuracy(matrix: np.ndarray) -> float:
    """The fraction of pixels whose class is predicted; 0 if there are no pixels."""
    hits, true, _ = _counts(matrix)
    return float(hits.sum() / max(true.sum(), 1))


def _counts(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hits, pixels and predicted pixels of every class."""
    matrix = np.asarray(matrix, np.float64)
    return np.diag(matrix), matrix.sum(1), matrix.sum(0)


def _divided(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    defined = denominator > 0
    return np.where(defined, numerator / np.where(defined, denominator, 1), np.nan)
