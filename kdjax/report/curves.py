"""The pictures of a report, drawn by matplotlib as SVG."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kdjax.report.contents import Reported
from kdjax.runs.history import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by people who see colors differently too: Okabe and Ito's, without yellow.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444")
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "kdjax",
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
}
_COLUMNS = 3
_ACCURACIES = ("top1", "miou", "mAP")
_NUMBERED = 20  # classes up to which a confusion matrix has numbers


class Panel(NamedTuple):
    """One picture of several curves.

    Attributes:
      title: what is measured.
      curves: names of columns, by what they are called in the picture.
      percent: whether values are fractions that are shown in percent.
      log: whether the axis of values is logarithmic, where all values are positive.
    """

    title: str
    curves: Mapping[str, str]
    percent: bool = False
    log: bool = False


def panels(history: History, *, brief: bool = False) -> list[Panel]:
    """The panels that a history has curves for.

    Args:
      history: of a run.
      brief: whether a panel has one curve only, so that several runs can be compared.
    """
    columns = history.columns
    terms = {name: name.removeprefix("train/") for name in columns if name.startswith("train/")}
    accuracies, entropies, pruning, trained = {}, {}, {}, {}
    for name in columns:
        head, _, measure = name.rpartition("/")
        if name.startswith("train/"):
            if measure == "accuracy":
                trained[name] = head.removeprefix("train/")
        elif measure in _ACCURACIES:
            accuracies[name] = head
        elif measure == "cross_entropy":
            entropies[name] = head
        elif name.startswith("pruning/") or "pruned" in name or measure == "rate":
            pruning[name] = name.removeprefix("pruning/")
    losses = {name: label for name, label in terms.items() if name not in trained}
    if brief:
        means = {name: label for name, label in accuracies.items() if name.startswith("mean/")}
        accuracies, losses = means, {"train/loss": "loss"}
        entropies = dict(itertools.islice(entropies.items(), 1))
        trained = {}
        pruning = dict(itertools.islice(pruning.items(), 1))
    made = [
        Panel("accuracy on the test images, %", accuracies, percent=True),
        Panel(
            "training loss" if len(losses) == 1 else "terms of the training loss", losses, log=True
        ),
        Panel("cross entropy on the test images", entropies),
        Panel("accuracy on the training images, %", trained, percent=True),
        Panel("learning rate", {"learning_rate": ""}),
        Panel("images per second", {"images_per_second": ""}),
        Panel("pruning", pruning),
    ]
    return [panel for panel in made if any(name in columns for name in panel.curves)]


def of_run(run: Reported) -> str:
    """The curves of a run, as SVG."""
    shown = panels(run.history)
    return _drawn(shown, [(run.history, None)])


def of_runs(runs: Sequence[Reported]) -> str:
    """The main curves of several runs in the same panels, a color for each run, as SVG."""
    shown = {panel.title: panel for run in runs for panel in panels(run.history, brief=True)}
    return _drawn(list(shown.values()), [(run.history, run.name) for run in runs])


def _drawn(shown: Sequence[Panel], histories: Sequence[tuple[History, str | None]]) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    rows = -(-len(shown) // _COLUMNS)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.2 * _COLUMNS, 3.0 * rows))
        gaps = {"bottom": 0.55 / (3.0 * rows), "top": 1 - 0.3 / (3.0 * rows), "hspace": 0.38}
        figure.subplots_adjust(left=0.045, right=0.99, wspace=0.18, **gaps)
        for place, panel in enumerate(shown):
            axes = figure.add_subplot(rows, _COLUMNS, place + 1)
            _draw_panel(axes, panel, histories)
        return _svg(figure)


def _draw_panel(axes: Axes, panel: Panel, histories: Sequence[tuple[History, str | None]]) -> None:
    """Draws the curves of a panel over epochs, with a legend where there are several."""
    lines, positive = itertools.cycle(itertools.product(("-", "--", ":"), _COLORS)), True
    for history, run in histories:
        for column, label in panel.curves.items():
            line, color = next(lines)
            if column not in history.columns:
                continue
            values = history[column] * (100 if panel.percent else 1)
            known = ~np.isnan(values)
            positive &= bool((values[known] > 0).all())
            axes.plot(
                history["epoch"][known],
                values[known],
                linestyle=line,
                color=color,
                label=label if run is None else run,
                linewidth=1.6,
                marker="o" if known.sum() < 2 else None,
                markersize=4,
            )
    axes.set_title(panel.title, loc="left", fontsize=9.5, fontweight="bold")
    axes.set_xlabel("epoch")
    axes.locator_params(axis="x", integer=True)
    if panel.log and positive:
        axes.set_yscale("log")
    if len(panel.curves) * len(histories) > 1:
        axes.legend(fontsize=8, edgecolor="none", framealpha=0.75)


def confusion(matrix: np.ndarray, class_names: Sequence[str]) -> str:
    """A confusion matrix as SVG, darker where more images of a class are predicted to be one.

    Args:
      matrix: `[N, N]`, numbers of images: rows are classes, columns what is predicted.
      class_names: of the N classes.
    """
    import matplotlib
    from matplotlib.figure import Figure

    count = len(class_names)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 2.2 + 0.32 * min(count, _NUMBERED)
    with matplotlib.rc_context({**_STYLE, "axes.grid": False}):
        figure = Figure(figsize=(side, side), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        axes.set_xlabel("predicted")
        axes.set_ylabel("class")
        if count <= _NUMBERED:
            axes.set_xticks(range(count), class_names, rotation=90)
            axes.set_yticks(range(count), class_names)
            for row, column in np.argwhere(matrix > 0):
                ink = "white" if shares[row, column] > 0.5 else "black"
                text = str(matrix[row, column])
                axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=7)
        return _svg(figure)


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]  # without the XML declaration
