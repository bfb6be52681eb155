"""Means over seeds of rows, as the cells of tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from kdjax.sweep import rows as rows_file
from kdjax.sweep.rows import Row


def cell(rows: Sequence[Row], label: str) -> str:
    """Top-1 in the last epoch and the number of seeds, or nothing where there is no row."""
    runs = rows_file.of_label(rows, label)
    return f"{summary(runs)[0]} ({len(runs)})" if runs else ""


def summary(runs: list[list[dict[str, float]]], metric: str = "top1") -> list[str]:
    """The cells of one method: a metric in the last and the best epoch, and the ensemble's.

    Args:
      runs: evaluated rows of each seed, in order.
      metric: 'top1' or 'miou'.
    """
    if not runs:
        return ["", "", ""]
    last = [rows[-1][f"mean/{metric}"] for rows in runs]
    best = [max(row[f"mean/{metric}"] for row in rows) for rows in runs]
    ensemble = f"ensemble/{metric}"
    return [
        spread(last),
        spread(best),
        spread([rows[-1][ensemble] for rows in runs if ensemble in rows[-1]]),
    ]


def tested(runs: list[list[dict[str, float]]], name: str) -> list[float]:
    """The metric 'test/NAME' of every seed that was tested and has it."""
    found = (row.get(f"test/{name}") for rows in runs for row in rows)
    return [value for value in found if value is not None]


def spread(values: Sequence[float], *, percent: bool = True) -> str:
    """Mean and standard deviation, in % or with four digits; empty without values."""
    if not values:
        return ""
    factor, digits = (100, ".2f") if percent else (1, ".4g")
    shown = f"{factor * statistics.mean(values):{digits}}"
    if len(values) > 1:
        shown += f" +- {factor * statistics.stdev(values):{digits}}"
    return shown
