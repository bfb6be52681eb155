"""The end of a run whose accuracy has stopped to rise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from kdjax.training.hooks import Hook


def early_stopping(config: ConfigDict) -> Hook:
    """Ends a run after `config.evaluation.patience` evaluations in a row without a better one.

    It is decided from the rows of metrics alone, so that a run that is resumed ends where an
    uninterrupted one does, and one that has ended stays so.

    Args:
      config: `config.evaluation`.
    """
    best, patience = config.evaluation.best, config.evaluation.patience

    def ends(rows: Sequence[Mapping[str, float]]) -> str | None:
        evaluated = [row for row in rows if best in row]
        if not evaluated:
            return None
        values = [row[best] for row in evaluated]
        at = int(np.argmax(values))  # the first one, where several are equal
        if len(values) - 1 - at < patience:
            return None
        return (
            f"ended after epoch {evaluated[-1]['epoch']}: {best} has not risen above "
            f"{values[at]:.4f}, of epoch {evaluated[at]['epoch']}, in {len(values) - 1 - at} "
            f"evaluations (config.evaluation.patience={patience})"
        )

    return Hook(ends=ends)
