"""Accuracy over the epochs of an experiment's runs, as a picture: a line for each label.

    python -m experiments.curves experiments.pruning_cifar100 --only dense,sfp_40,ghfp_40

Lines are means over the seeds whose rows are there, bands reach from the lowest seed to the
highest. Needs matplotlib (the extra `plots`).
"""

import argparse
import importlib
import sys
from typing import Any

import numpy as np

from experiments import sweep
from kdjax.sweep import rows as rows_file


def points(runs: list[list[dict[str, float]]]) -> np.ndarray:
    """Epoch, mean, lowest and highest top-1 in %, `[evaluations, 4]`, of a label's runs.

    Args:
      runs: evaluated rows of every seed; epochs that some seed has not reached are left out.
    """
    rows = [
        (
            same[0]["epoch"],
            *(100 * f([row["mean/top1"] for row in same]) for f in (np.mean, min, max)),
        )
        for same in zip(*runs, strict=False)
    ]
    return np.asarray(rows)


def figure(curves: dict[str, np.ndarray]) -> Any:
    """The picture of labels and their `points`."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(8, 5), layout="constrained")
    axes = picture.subplots()
    for label, (epochs, mean, low, high) in ((name, array.T) for name, array in curves.items()):
        (line,) = axes.plot(epochs, mean, marker="o", markersize=3, linewidth=1.5, label=label)
        axes.fill_between(epochs, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set_xlabel("epoch")
    axes.set_ylabel("top-1 %, test split")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", ncols=2)
    return picture


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", help="module, for instance experiments.pruning_cifar100")
    parser.add_argument("--only", help="labels to draw, with commas; all of them when not given")
    parser.add_argument("--output", default="curves.png")
    options = parser.parse_args(argv)
    experiment = importlib.import_module(options.experiment)
    results = sweep.RESULTS / options.experiment.rpartition(".")[2]
    labels = sweep.chosen(parser, experiment, options.only)
    rows = rows_file.read(results)
    runs = {label: rows_file.of_label(rows, label) for label in labels}
    if missing := [label for label in labels if not runs[label]]:
        parser.error(f"no rows of {missing} in {results / rows_file.FILE}")
    curves = {f"{label} ({len(seeds)})": points(seeds) for label, seeds in runs.items()}
    figure(curves).savefig(options.output, dpi=120)
    print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
