"""Which of the checkpoints of a run is the best one."""

from __future__ import annotations

import math
import os
from pathlib import Path

from kdjax.runs import checkpoint_directories as directories
from kdjax.runs import saved_state
from kdjax.runs.schema import Damaged


def read_scores(directory: Path, metric: str, damaged: dict[int, str]) -> dict[int, float]:
    """The score of every finished checkpoint by its step: its value of a metric.

    Args:
      directory: of the checkpoints.
      metric: name of the metric; a checkpoint without it has the score -inf.
      damaged: what is wrong with checkpoints that cannot be read is added here, by step; they have
        no score.
    """
    scores = {}
    for step in directories.steps(directory):
        path = directory / str(step)
        try:
            _, metrics = saved_state.read_documents(path)
        except Damaged as error:
            if os.path.lexists(path):
                damaged.setdefault(step, str(error))
            continue
        scores[step] = metrics.get(metric, -math.inf)
    return scores


def highest(scores: dict[int, float]) -> int | None:
    """The step of the highest score, the later one of equals; None if none has a score."""
    steps = [step for step, score in scores.items() if score > -math.inf]
    return max(steps, key=lambda step: (scores[step], step), default=None)
