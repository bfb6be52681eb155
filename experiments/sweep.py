"""Runs an experiment's command lines one after the other, and makes its table from their rows.

    python -m experiments.sweep experiments.mcl_cifar100 --runs runs/mcl_cifar100 \
        --config.data.dir=DATA/tfds

Everything behind `--runs` goes to each `python -m kdjax.main` as it is. A sweep that was stopped
goes on where it stopped: the run under way resumes; runs that have rows are not run again, which
the sweep says (`--again` runs them and replaces their rows). Rows of another config than the
command's are refused. The rows of finished runs land in experiments/results/NAME/rows.csv, NAME
being the experiment's last part, and the table of them between the markers of README.md beside it.

An experiment is a module with `TITLE`, `SEEDS`, `COMMON` (flags of all runs) and `RUNS`, which maps
each method's label to its own flags; `{runs}` in them is the directory of the workdirs, `{seed}`
the run's seed. It may have `DATA = False`, when it needs no prepared data set, `ONCE`, labels that
are run with the first seed only (teachers), and `table`, a function from a label's cell to the
lines of the table, in place of one row per label.
"""

import argparse
import importlib
import statistics
import subprocess
import sys
from pathlib import Path

from experiments import rows as rows_file
from kdjax import config as configs
from kdjax.cli.command_line import parse
from kdjax.errors import UserError
from kdjax.runs.files import write_atomically

RESULTS = Path(__file__).parent / "results"
BEGIN = "<!-- made by experiments.sweep: what stands between the markers is replaced -->"
END = "<!-- end of what experiments.sweep makes -->"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", help="module, for instance experiments.mcl_cifar100")
    parser.add_argument("--runs", type=Path, required=True, help="directory of the workdirs")
    parser.add_argument("--only", help="labels to run, with commas; all of them when not given")
    parser.add_argument("--again", action="store_true", help="also runs that have rows already")
    parser.add_argument("--table-only", action="store_true", help="no runs; the table from rows")
    arguments, extra = parser.parse_known_args(argv)
    experiment = importlib.import_module(arguments.experiment)
    results = RESULTS / arguments.experiment.rpartition(".")[2]
    results.mkdir(parents=True, exist_ok=True)
    labels = chosen(parser, experiment, arguments.only)
    if not arguments.table_only:
        try:
            status = run_all(experiment, labels, arguments, results, extra)
        except UserError as error:
            parser.exit(2, f"{error}\n")
        if status:
            return status
    write_page(experiment, arguments.experiment, results)
    return 0


def chosen(parser: argparse.ArgumentParser, experiment, only: str | None) -> list[str]:
    """The labels that `--only` names, or all; leaves the program at an unknown one."""
    labels = only.split(",") if only else list(experiment.RUNS)
    if unknown := sorted(set(labels) - set(experiment.RUNS)):
        parser.error(f"no label {unknown}; the labels are {sorted(experiment.RUNS)}")
    return labels


def run_all(experiment, labels: list[str], arguments, results: Path, extra: list[str]) -> int:
    """Runs what has no rows yet, seed by seed; returns the first exit status that is not 0.

    Raises:
      UserError: the rows of a run are of another config.
    """
    runs = [
        (label, seed)
        for seed in experiment.SEEDS  # so that a part of the sweep can be compared
        for label in labels
        if seed == experiment.SEEDS[0] or label not in getattr(experiment, "ONCE", ())
    ]
    flags = {run: flags_of(experiment, *run, arguments.runs, extra) for run in runs}
    done = {}
    if not arguments.again:
        rows = rows_file.read(results)
        done = {run: rows_file.of_run(rows, *run) for run in runs}
    for run in runs:  # before any of them is run
        check(done.get(run), flags[run], f"{results / rows_file.FILE}: {run[0]}, seed {run[1]}")
    if present := [run for run in runs if done.get(run)]:
        unknown = sum(not done[run][0]["config_hash"] for run in present)
        print(
            f"{len(present)} of {len(runs)} runs have rows in {results / rows_file.FILE} and are "
            f"not run ({unknown} of them without a config hash to compare); --again runs them",
            flush=True,
        )
    for run in runs:
        if not done.get(run) and (status := run_one(*run, flags[run], arguments.runs, results)):
            return status
    return 0


def flags_of(experiment, label: str, seed: int, runs: Path, extra: list[str]) -> list[str]:
    """The flags of a run's `kdjax.main`."""
    flags = [flag.format(runs=runs, seed=seed) for flag in experiment.RUNS[label]]
    workdir = runs / f"{label}_seed{seed}"
    common = (*experiment.COMMON, f"--config.seed={seed}")
    return [*flags, *common, *extra, f"--workdir={workdir}"]


def check(present: list[dict] | None, flags: list[str], where: str) -> None:
    """Refuses rows of another config than that of the flags.

    Raises:
      UserError: they are; or the flags are bad.
    """
    if not present or not present[0]["config_hash"]:
        return
    config = configs.plain(parse(["kdjax", *flags]).config)
    own = rows_file.config_hash(config)
    if others := {row["config_hash"] for row in present} - {own}:
        raise UserError(
            f"{where} has rows of config {', '.join(sorted(others))}, this command's is {own}; "
            "--again runs it and replaces them"
        )


def run_one(label: str, seed: int, flags: list[str], runs: Path, results: Path) -> int:
    """Runs one command line and keeps its rows; returns its exit status."""
    name = f"{label}_seed{seed}"
    print(name, flush=True)
    command = [sys.executable, "-m", "kdjax.main", *flags]
    status = subprocess.run(command, check=False).returncode
    if status == 0:
        others = [
            row
            for row in rows_file.read(results)
            if (row["label"], row["seed"]) != (label, str(seed))
        ]
        rows_file.write(results, [*others, *rows_file.of_workdir(runs / name, label, seed)])
    return status


def write_page(experiment, module: str, results: Path) -> None:
    """Puts the table between the markers of README.md; makes the page where there is none.

    Raises:
      SystemExit: the page has no markers.
    """
    page = results / "README.md"
    text = page.read_text() if page.exists() else f"# {experiment.TITLE}\n\n{BEGIN}\n{END}\n"
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(
            f"{page}: no markers; put these two lines where the table goes:\n{BEGIN}\n{END}"
        )
    lines = [before + BEGIN, *table(experiment, module, results), END + after]
    write_atomically(page, "\n".join(lines))


def table(experiment, module: str, results: Path) -> list[str]:
    """Accuracies per method, from the rows that are there, and the commands."""
    rows = rows_file.read(results)
    if hasattr(experiment, "table"):
        lines = experiment.table(lambda label: cell(rows, label))
    else:
        lines = rows_of_labels(experiment, rows)
    command = f"python -m experiments.sweep {module} --runs DIR"
    if getattr(experiment, "DATA", True):
        command += " --config.data.dir=DATA/tfds"
    flags = "\n".join(f"    {flag}" for flag in experiment.COMMON)
    lines += ["", "Top-1 in %: mean over seeds of the mean over the networks, +- the standard "]
    lines[-1] += "deviation over seeds. Best epoch: the highest mean, of the epochs evaluated."
    lines += ["", f"Made by `{command}`; flags of all runs:", "", flags, ""]
    for label, own in experiment.RUNS.items():
        lines.append(f"- {label}: `{' '.join(own)}`")
    return ["", *lines, "", f"Rows: [{rows_file.FILE}]({rows_file.FILE}).", ""]


def rows_of_labels(experiment, rows: list[rows_file.Row]) -> list[str]:
    """One row for every label."""
    lines = [
        "| method | seeds | last epoch | best epoch | ensemble, last epoch |",
        "|" + "---|" * 5,
    ]
    for label in experiment.RUNS:
        runs = rows_file.of_label(rows, label)
        lines.append(f"| {label} | {len(runs)} | {' | '.join(summary(runs))} |")
    return lines


def cell(rows: list[rows_file.Row], label: str) -> str:
    """Accuracy in the last epoch and the number of seeds, or nothing where there is no row."""
    runs = rows_file.of_label(rows, label)
    return f"{summary(runs)[0]} ({len(runs)})" if runs else ""


def summary(runs: list[list[dict[str, float]]]) -> list[str]:
    """The table's cells for one method; runs hold evaluated rows, in order."""
    if not runs:
        return ["", "", ""]
    last = [rows[-1]["mean/top1"] for rows in runs]
    best = [max(row["mean/top1"] for row in rows) for rows in runs]
    ensemble = [rows[-1]["ensemble/top1"] for rows in runs if "ensemble/top1" in rows[-1]]
    return [spread(last), spread(best), spread(ensemble)]


def spread(values: list[float]) -> str:
    """Mean and standard deviation in %."""
    if not values:
        return ""
    deviation = f" +- {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.2f}{deviation}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
