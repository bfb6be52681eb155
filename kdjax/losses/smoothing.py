"""Label smoothing of every cross entropy in a block of code."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp


@dataclasses.dataclass
class Smoothing:
    """What `smoothed_labels` does.

    Attributes:
      amount: of the smoothing, in [0, 1).
      uses: the number of cross entropies on class labels that were computed, or traced, with it.
    """

    amount: float
    uses: int = 0


_current: contextvars.ContextVar[Smoothing | None] = contextvars.ContextVar(
    "smoothing", default=None
)


@contextlib.contextmanager
def smoothed_labels(amount: float) -> Iterator[Smoothing]:
    """Smooths the class labels of `losses.cross_entropy`, while the block runs.

    Target probabilities, which other labels are, stay as they are.

    Source: Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7; PyTorch's
    `CrossEntropyLoss(label_smoothing=amount)`.

    Args:
      amount: part of the target that is spread over all classes evenly.
    """
    smoothing = Smoothing(amount)
    token = _current.set(smoothing)
    try:
        yield smoothing
    finally:
        _current.reset(token)


def smoothed(values: jax.Array, log_probs: jax.Array) -> jax.Array:
    """Cross entropies on class labels, smoothed within `smoothed_labels`.

    Args:
      values: `[...]`, the cross entropies without smoothing.
      log_probs: `[..., N]`. Excluded classes, of -inf, have no part in the even distribution.
    """
    smoothing = _current.get()
    if smoothing is None:
        return values
    smoothing.uses += 1
    allowed = jnp.isfinite(log_probs)
    even = -jnp.where(allowed, log_probs, 0).sum(-1) / allowed.sum(-1)
    return (1 - smoothing.amount) * values + smoothing.amount * even
