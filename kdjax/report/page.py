"""`report.html`: one page that needs no other file."""

from __future__ import annotations

import base64
import html
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import kdjax
from kdjax import config as configs
from kdjax.errors import UserError
from kdjax.report import contents, curves
from kdjax.report.contents import Reported
from kdjax.report.markup import document, number, table
from kdjax.runs import files

FILE = "report.html"
_WITHOUT = "pip install 'kdjax[plots]'"
_PAIRS = 10  # of classes that are confused most


def available() -> bool:
    """Whether the library that draws the curves is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def write(workdirs: Sequence[Path], directory: Path) -> Path:
    """Writes DIRECTORY/report.html about some runs, over the one that is there.

    Args:
      workdirs: of the runs, at least one.
      directory: made if missing.

    Raises:
      UserError: matplotlib is not installed, a workdir holds no run with an epoch, a file is
        damaged, or the page cannot be written.
    """
    if not available():
        raise UserError(f"a report needs matplotlib: {_WITHOUT}")
    runs = contents.read(workdirs)
    page = _of_run(runs[0]) if len(runs) == 1 else _of_runs(runs)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.cannot_write(directory, error) from error
    files.write_atomically(directory / FILE, page)
    return directory / FILE


def after_training(workdir: Path) -> str:
    """Writes the report of a run that has just been trained, of what is in its workdir.

    Returns:
      A line for the user: where it is, or what it needs.

    Raises:
      UserError: as `write`.
    """
    if not available():
        return f"no report was written: {_WITHOUT}, then --job=report"
    return str(write([workdir], workdir))


def _of_run(run: Reported) -> str:
    parts = [
        f"<h1>{html.escape(run.name)}</h1>",
        f'<p class="about">{_about(run)}</p>',
        _cards(run),
        f'<h2>Curves</h2><div class="wide">{curves.of_run(run)}</div>',
        _confusion(run),
        _batch(run),
        "<h2>Best and last epoch</h2>" + _epochs(run),
        _settings(run),
        "<h2>Versions</h2>" + table(("", ""), run.versions.items()),
    ]
    return document(run.name, parts)


def _of_runs(runs: Sequence[Reported]) -> str:
    title = f"{len(runs)} runs"
    parts = [
        f"<h1>{title}</h1>",
        f'<p class="about">kdjax {kdjax.__version__}</p>',
        "<h2>Results</h2>" + _results(runs),
        _spreads(runs),
        f'<h2>Curves</h2><div class="wide">{curves.of_runs(runs)}</div>',
        "<h2>Settings that differ</h2>" + _differences(runs),
    ]
    for run in runs:
        parts.append(
            f"<h2>{html.escape(run.name)}</h2><p class='about'>{_about(run)}</p>{_cards(run)}"
            f'<div class="wide">{curves.of_run(run)}</div>{_confusion(run)}{_batch(run)}'
            f"{_settings(run)}"
        )
    return document(title, parts)


def _about(run: Reported) -> str:
    config = run.config
    networks = ", ".join(config.networks)
    devices, device, version = (run.versions.get(key) for key in ("devices", "device", "kdjax"))
    return html.escape(
        f"{config.method} of {networks} on {config.data.source}; {devices} x {device}, kdjax "
        f"{version}"
    )


def _cards(run: Reported) -> str:
    metric = run.config.evaluation.best
    cards = [
        (number(run.best.get(metric), percent=True), f"{metric}, best, epoch {run.best['epoch']}"),
        (number(run.last.get(metric), percent=True), f"{metric}, last"),
        (f"{run.last['epoch']} of {run.config.epochs}", "epochs"),
        (number(run.last.get("train/loss")), "training loss, last"),
        (f"{np.nanmedian(run.history['images_per_second']):.0f}", "images per second, median"),
    ]
    shown = "".join(
        f'<div class="card"><b>{value}</b><span>{html.escape(label)}</span></div>'
        for value, label in cards
    )
    return f'<div class="cards">{shown}</div>'


def _confusion(run: Reported) -> str:
    """The confusion matrix, and the pairs of classes that are confused most."""
    if run.confusion is None:
        return ""
    names = run.confusion["class_names"]
    matrix = np.array(run.confusion["matrix"], np.int64).reshape(len(names), len(names))
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    places = [divmod(int(place), len(names)) for place in order]
    pairs = [(names[r], names[c], wrong[r, c]) for r, c in places if wrong[r, c]]
    most = table(("class", "predicted as", "images"), pairs)
    return (
        f"<h2>Confusion matrix</h2><p class='about'>test images, best checkpoint</p>"
        f"<div class='wide'>{curves.confusion(matrix, names)}</div>"
        f"<details><summary>Classes that are confused most</summary>{most}</details>"
    )


def _batch(run: Reported) -> str:
    if run.batch is None:
        return ""
    data = base64.b64encode(run.batch).decode()
    return (
        "<h2>A batch as the networks see it</h2>"
        f'<img alt="images of a batch" src="data:image/png;base64,{data}">'
    )


def _epochs(run: Reported) -> str:
    names = [name for name in run.history.columns if name in run.best or name in run.last]
    rows = [(name, number(run.best.get(name)), number(run.last.get(name))) for name in names]
    return table(("metric", "best epoch", "last epoch"), rows)


def _settings(run: Reported) -> str:
    text = html.escape(json.dumps(configs.plain(run.config), indent=2))
    return f"<h2>Config</h2><details><summary>config.json</summary><pre>{text}</pre></details>"


def _results(runs: Sequence[Reported]) -> str:
    rows = []
    for run in runs:
        metric = run.config.evaluation.best
        best, last = (number(row.get(metric), percent=True) for row in (run.best, run.last))
        about = (run.name, run.config.method, ", ".join(run.config.networks))
        rows.append((*about, run.last["epoch"], metric, best, run.best["epoch"], last))
    head = ("run", "method", "networks", "epochs", "metric", "best", "at epoch", "last")
    return table(head, rows)


def _spreads(runs: Sequence[Reported]) -> str:
    """The table of means and spreads, where runs differ in their seeds alone."""
    metric = runs[0].config.evaluation.best
    if any(metric not in run.history.columns for run in runs):
        return ""
    groups = contents.groups(runs, metric)
    if all(len(group.names) == 1 for group in groups):
        return ""
    rows = [
        (", ".join(group.names), len(group.names), _spread(group.best), _spread(group.last))
        for group in groups
    ]
    head = ("runs that differ in the seed", "number", f"{metric}, best", "last")
    note = "<p class='about'>mean and standard deviation over seeds (n - 1), in percent</p>"
    return "<h2>Means and spreads</h2>" + note + table(head, rows)


def _spread(values: np.ndarray) -> str:
    mean = f"{100 * values.mean():.2f}"
    return mean if len(values) == 1 else f"{mean} ± {100 * values.std(ddof=1):.2f}"


def _differences(runs: Sequence[Reported]) -> str:
    rows = [(name, *values) for name, values in contents.differing(runs).items()]
    return table(("setting", *(run.name for run in runs)), rows) if rows else "<p>None.</p>"
