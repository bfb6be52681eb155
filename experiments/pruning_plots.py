"""What pruning did over the epochs of runs, as a picture: a column for each run.

    python -m experiments.pruning_plots runs/srfp runs/ghfp --output pruning.png

Above: the schedules, which are the pruned fraction of the filters, what the pruned ones are
multiplied by, and the fraction of them that never returns. In the middle: mean norms of the filters
that were kept, and that were pruned, right after pruning. Below: the accuracy on the test split,
before and after the epoch's pruning. A RUN is a workdir, or a copy of its metrics.jsonl. Needs
matplotlib (the extra `plots`).
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from kdjax.errors import UserError
from kdjax.runs import metrics

# name of a metric: (what it is called, color, line style)
_SCHEDULES = {
    "pruning/rate": ("rate", "tab:blue", "-"),
    "pruning/decay": ("decay", "tab:orange", "--"),
    "pruning/hard_fraction": ("hard fraction", "tab:green", "-."),
}
_NORMS = {
    "pruning/norm_kept": ("kept", "tab:blue", "-"),
    "pruning/norm_pruned": ("pruned", "tab:red", "--"),
}
_ACCURACIES = {
    "before_pruning/mean/top1": ("before pruning", "tab:gray", "--"),
    "mean/top1": ("after pruning", "tab:blue", "-"),
}


def read(run: str) -> tuple[str, list[dict[str, float]]]:
    """A run's name and its rows.

    Raises:
      UserError: no metrics there, or none of pruning.
    """
    path = Path(run)
    path = path if path.is_file() else path / "metrics.jsonl"
    name = path.resolve().parent.name if path.name == "metrics.jsonl" else path.stem
    rows = metrics.read(path)
    rows = [row for row in rows if "pruning/rate" in row]
    if not rows:
        raise UserError(f"{run} has no metrics of pruning: name a workdir of a run that prunes")
    return name, rows


def draw(axes: Any, rows: list[dict[str, float]], lines: dict[str, tuple], scale: float = 1):
    """Draws metrics over epochs, those that the rows have."""
    for metric, (label, color, style) in lines.items():
        points = [(row["epoch"], scale * row[metric]) for row in rows if metric in row]
        if points:
            axes.plot(*zip(*points, strict=True), style, color=color, label=label, linewidth=1.5)


def figure(runs: list[tuple[str, list[dict[str, float]]]]):
    """The picture of runs, as `read` returns them."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    picture = Figure(figsize=(1.2 + 3.6 * len(runs), 7.5), layout="constrained")
    axes = picture.subplots(3, len(runs), squeeze=False, sharex="col", sharey="row")
    for column, (name, rows) in zip(axes.T, runs, strict=True):
        column[0].set_title(name)
        draw(column[0], rows, _SCHEDULES)
        draw(column[1], rows, _NORMS)
        draw(column[2], rows, _ACCURACIES, scale=100)
        column[2].set_xlabel("epoch")
        column[2].xaxis.set_major_locator(MaxNLocator(integer=True))
    for panel, label in zip(axes[:, 0], ("schedule", "mean norm", "top-1 %"), strict=True):
        panel.set_ylabel(label)
    axes[0, 0].set_ylim(-0.04, 1.04)
    axes[1, 0].set_ylim(bottom=-0.04 * axes[1, 0].get_ylim()[1])  # lines at zero are to be seen
    for row in axes:
        for panel in row:
            panel.grid(alpha=0.3)
        row[-1].legend(loc="best", fontsize="small")
    return picture


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--output", default="pruning.png")
    options = parser.parse_args(argv)
    try:
        runs = [read(run) for run in options.runs]
    except UserError as error:
        parser.error(str(error))
    figure(runs).savefig(options.output, dpi=120)
    print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
