"""What a report shows beside metrics: a batch, and the confusion matrix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from kdjax.cli import batch_picture, frozen, predicting
from kdjax.data import load
from kdjax.report.contents import BATCH, CONFUSION
from kdjax.runs import metrics
from kdjax.training.evaluation import load_run

_PICTURES = 24
_BATCH_SIZE = 256


def prepare(workdir: Path, config: ConfigDict | None = None) -> None:
    """Writes `batch.png` and `confusion.json` of a run where they are missing or older.

    Args:
      workdir: of the run.
      config: its settings, where data lie elsewhere than in training; None for those of training.

    Raises:
      UserError: no run, or its data or best checkpoint cannot be read.
    """
    trained = load_run(workdir).config
    config = trained if config is None else config
    log = workdir / "metrics.jsonl"
    if not log.exists():  # stopped in its first epoch
        return
    newest = log.stat().st_mtime
    if _is_older(workdir / BATCH, newest):
        batch_picture.write_batch(config, workdir, step=0, limit=_PICTURES)
    row = metrics.last(log) or {}
    if "network_0/cross_entropy" in row and _is_older(workdir / CONFUSION, newest):
        _write_confusion(workdir, config)


def _is_older(path: Path, time: float) -> bool:
    return not path.is_file() or path.stat().st_mtime < time


def _write_confusion(workdir: Path, config: ConfigDict) -> None:
    """Counts the test images of every class by what all networks together predict."""
    predictor = predicting.opened(workdir, config, "best", ())
    test, count = load(config).test, len(predictor.class_names)
    matrix = np.zeros((count, count), np.int64)
    for start in range(0, len(test.labels), _BATCH_SIZE):
        labels = test.labels[start : start + _BATCH_SIZE]
        rows = range(start, start + len(labels))
        pixels = np.stack([predictor.fitted(test[0][row], config.data.source) for row in rows])
        np.add.at(matrix, (labels, predictor.predict(pixels).argmax(-1)), 1)
    results = {
        "networks": list(predictor.names),
        "class_names": list(predictor.class_names),
        "matrix": matrix.tolist(),
    }
    frozen.write(workdir, CONFUSION.removesuffix(".json"), results)
