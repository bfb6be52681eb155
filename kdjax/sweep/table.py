"""The table of a sweep: mean and spread over seeds of every combination of settings."""

from __future__ import annotations

from collections.abc import Sequence

from kdjax.sweep import rows as rows_file
from kdjax.sweep.rows import Row
from kdjax.sweep.summaries import spread

FILE = "table.md"
_SHARES = ("top1", "top5", "miou")  # in [0, 1], shown in %


def columns(rows: Sequence[Row]) -> list[str]:
    """The first columns of the CSV: the run, what the sweep set, machine and versions."""
    return ["run", "config", *_settings(rows), *rows_file.KEYS, "epoch", "step"]


def markdown(rows: Sequence[Row]) -> str:
    """One line for every combination of config and settings, in the order of their labels.

    Values are of the metric by which each run chooses its best checkpoint: in the last epoch, and
    the highest of the evaluated epochs; means over seeds and the sample standard deviation.
    """
    settings = _settings(rows)
    head = ["config", *(name.removeprefix("config.") for name in settings), "seeds", "metric"]
    lines = [_line([*head, "last epoch", "best epoch"])]
    lines.append("|" + "---|" * (len(head) + 2))
    for label in sorted({row["label"] for row in rows}):
        of_label = [row for row in rows if row["label"] == label]
        shown = of_label[0]
        metric = shown["metric"]
        percent = metric.rpartition("/")[2] in _SHARES
        cells = [shown["config"], *(shown.get(name, "") for name in settings)]
        cells += [str(len(of_label)), f"{metric}, %" if percent else metric]
        for name in (metric, f"best/{metric}"):
            values = [float(row[name]) for row in of_label if row.get(name)]
            cells.append(spread(values, percent=percent))
        lines.append(_line(cells))
    return "\n".join(lines) + "\n"


def _settings(rows: Sequence[Row]) -> list[str]:
    """The settings of the grid, in the order in which they appear."""
    return list(dict.fromkeys(name for row in rows for name in row if name.startswith("config.")))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
