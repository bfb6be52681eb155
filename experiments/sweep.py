"""Runs an experiment's command lines one after the other, and makes its table from their logs.

    python -m experiments.sweep experiments.mcl_cifar100 --runs runs/mcl_cifar100 \
        --config.data.dir=DATA/tfds

Everything behind `--runs` goes to each `python -m kdjax.main` as it is. A sweep that was stopped
goes on where it stopped: finished runs are not run again, the one under way resumes. Logs and the
table land in experiments/results/NAME as runs finish, NAME being the experiment's last part.

An experiment is a module with `TITLE`, `NOTE`, `SEEDS`, `COMMON` (flags of all runs) and `RUNS`,
which maps each method's label to its own flags; `{runs}` in them is the directory of the workdirs.
It may have `DATA = False`, when it needs no prepared data set, `ONCE`, labels that are run with the
first seed only (teachers), and `table`, a function from a label's cell to the lines of the table,
in place of one row per label.
"""

import argparse
import importlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from kdjax.runs import metrics
from kdjax.training import program as run

RESULTS = Path(__file__).parent / "results"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", help="module, for instance experiments.mcl_cifar100")
    parser.add_argument("--runs", type=Path, required=True, help="directory of the workdirs")
    parser.add_argument("--only", help="labels to run, with commas; all of them when not given")
    parser.add_argument("--table-only", action="store_true", help="no runs; the table from logs")
    arguments, extra = parser.parse_known_args(argv)
    experiment = importlib.import_module(arguments.experiment)
    results = RESULTS / arguments.experiment.rpartition(".")[2]
    results.mkdir(parents=True, exist_ok=True)
    labels = chosen(parser, experiment, arguments.only)
    if not arguments.table_only:
        for seed in experiment.SEEDS:  # seed by seed, so that a part of the sweep can be compared
            for label in labels:
                if seed != experiment.SEEDS[0] and label in getattr(experiment, "ONCE", ()):
                    continue
                status = run_one(experiment, label, seed, arguments.runs, results, extra)
                if status:
                    return status
    write_table(experiment, arguments.experiment, results)
    return 0


def chosen(parser: argparse.ArgumentParser, experiment, only: str | None) -> list[str]:
    """The labels that `--only` names, or all; leaves the program at an unknown one."""
    labels = only.split(",") if only else list(experiment.RUNS)
    if unknown := sorted(set(labels) - set(experiment.RUNS)):
        parser.error(f"no label {unknown}; the labels are {sorted(experiment.RUNS)}")
    return labels


def run_one(experiment, label: str, seed: int, runs: Path, results: Path, extra) -> int:
    """Runs one command line unless its log is there already; returns its exit status."""
    name = f"{label}_seed{seed}"
    log = results / f"{name}.jsonl"
    if log.exists():
        return 0
    workdir = runs / name
    own = [flag.format(runs=runs) for flag in experiment.RUNS[label]]
    flags = [*own, *experiment.COMMON, f"--config.seed={seed}", *extra]
    command = [sys.executable, "-m", "kdjax.main", *flags, f"--workdir={workdir}"]
    print(name, flush=True)
    status = subprocess.run(command, check=False).returncode
    if status == 0:
        copy = log.with_suffix(".tmp")
        shutil.copy(workdir / "metrics.jsonl", copy)
        os.replace(copy, log)
        machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        versions = json.loads((workdir / "versions.json").read_text())
        text = json.dumps(machine | versions, indent=2) + "\n"
        (results / "machine.json").write_text(text)
    return status


def write_table(experiment, module: str, results: Path) -> None:
    """Writes README.md: accuracies per method, from the logs that are there."""
    lines = [f"# {experiment.TITLE}", "", experiment.NOTE.strip(), ""]
    if hasattr(experiment, "table"):
        lines += experiment.table(lambda label: cell(results, label))
    else:
        lines += rows_of_labels(experiment, results)
    command = f"python -m experiments.sweep {module} --runs DIR"
    if getattr(experiment, "DATA", True):
        command += " --config.data.dir=DATA/tfds"
    flags = "\n".join(f"    {flag}" for flag in experiment.COMMON)
    lines += ["", "Top-1 in %: mean over seeds of the mean over the networks, +- the standard "]
    lines[-1] += "deviation over seeds. Best epoch: the highest mean, of the epochs evaluated."
    lines += ["", f"Made by `{command}`; flags of all runs:", "", flags, ""]
    for label, own in experiment.RUNS.items():
        lines.append(f"- {label}: `{' '.join(own)}`")
    lines += [
        "",
        "Logs: the .jsonl files beside this page; machine and versions: machine.json.",
        "",
    ]
    (results / "README.md").write_text("\n".join(lines))


def rows_of_labels(experiment, results: Path) -> list[str]:
    """One row for every label."""
    lines = [
        "| method | seeds | last epoch | best epoch | ensemble, last epoch |",
        "|" + "---|" * 5,
    ]
    for label in experiment.RUNS:
        rows = evaluated(results, label)
        lines.append(f"| {label} | {len(rows)} | {' | '.join(summary(rows))} |")
    return lines


def cell(results: Path, label: str) -> str:
    """Accuracy in the last epoch and the number of seeds, or nothing where there is no log."""
    rows = evaluated(results, label)
    return f"{summary(rows)[0]} ({len(rows)})" if rows else ""


def evaluated(results: Path, label: str) -> list[list[dict[str, float]]]:
    """For every log of a label its rows with an evaluation, in order."""
    logs = sorted(results.glob(f"{label}_seed*.jsonl"))
    return [[row for row in metrics.read(log) if "mean/top1" in row] for log in logs]


def summary(runs: list[list[dict[str, float]]]) -> list[str]:
    """The table's cells for one method; runs hold evaluated rows, in order."""
    if not runs:
        return ["", "", ""]
    assert all(run.network_names(rows[-1]) for rows in runs)
    last = [rows[-1]["mean/top1"] for rows in runs]
    best = [max(row["mean/top1"] for row in rows) for rows in runs]
    ensemble = [rows[-1]["ensemble/top1"] for rows in runs if "ensemble/top1" in rows[-1]]
    return [spread(last), spread(best), spread(ensemble)]


def spread(values: list[float]) -> str:
    if not values:
        return ""
    deviation = f" +- {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.2f}{deviation}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
