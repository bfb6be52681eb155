"""Runs an experiment's command lines one after the other, and makes its table from their rows.

    python -m experiments.sweep experiments.mcl_cifar100 --runs runs/mcl_cifar100 \
        --config.data.dir=DATA/tfds

Everything behind `--runs` goes to each `python -m kdjax.main` as it is. A sweep that was stopped
goes on where it stopped: the run under way resumes; runs that have rows are not run again, which
the sweep says (`--again` runs them and replaces their rows). A run that fails is reported, the
others go on unless `--most-failures` have failed, and the exit status is 1. Several processes with
the same command share the runs (`kdjax.sweep.claims`); one whose teacher another process trains
comes after the others and waits for it. Rows of another config than the command's are refused. The
rows of finished runs land in `--results`, by default experiments/results, as NAME/rows.csv, NAME
being the experiment's last part, and the table of them between the markers of README.md beside it.

An experiment is a module with `TITLE`, `SEEDS`, `COMMON` (flags of all runs) and `RUNS`, which maps
each method's label to its own flags. In flags `{runs}` is the directory of the workdirs, `{data}`
that of `--data` and `{seed}` the run's seed. It may have `DATA = False`, when it needs no prepared
data set, `ONCE`, labels that are run with the first seed only (teachers), `METRIC`, what is
compared in place of 'top1', `TEST`, which maps labels to settings with which the best checkpoint is
evaluated after training (on images that did not choose it), and `table`, a function from the rows
to the lines of the table, in place of one row per label.
"""

import argparse
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import kdjax
from kdjax import config as configs
from kdjax.cli.command_line import parse
from kdjax.errors import UserError
from kdjax.runs import signals
from kdjax.runs.files import write_atomically
from kdjax.sweep import claims, summaries, worker
from kdjax.sweep import rows as rows_file

RESULTS = Path(__file__).parent / "results"
BEGIN = "<!-- made by experiments.sweep: what stands between the markers is replaced -->"
END = "<!-- end of what experiments.sweep makes -->"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", help="module, for instance experiments.mcl_cifar100")
    parser.add_argument("--runs", type=Path, required=True, help="directory of the workdirs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="directory of rows and pages")
    parser.add_argument("--data", type=Path, help="directory of prepared data, {data} in flags")
    parser.add_argument("--only", help="labels to run, with commas; all of them when not given")
    parser.add_argument("--again", action="store_true", help="also runs that have rows already")
    parser.add_argument("--most-failures", type=int, help="failed runs that end the sweep")
    parser.add_argument("--table-only", action="store_true", help="no runs; the table from rows")
    arguments, extra = parser.parse_known_args(argv)
    experiment = importlib.import_module(arguments.experiment)
    results = arguments.results / arguments.experiment.rpartition(".")[2]
    results.mkdir(parents=True, exist_ok=True)
    labels = chosen(parser, experiment, arguments.only)
    if arguments.data is None and not arguments.table_only and uses_data(experiment):
        parser.error(f"--data: name the directory of prepared data, for {arguments.experiment}")
    failed: list[str] = []
    if not arguments.table_only:
        try:
            with signals.handled(signals.stop):
                failed = run_all(experiment, labels, arguments, results, extra)
        except UserError as error:
            parser.exit(2, f"{error}\n")
    write_page(experiment, arguments.experiment, results)
    if failed:
        print(f"failed: {', '.join(failed)}", flush=True)
    return int(bool(failed))


def chosen(parser: argparse.ArgumentParser, experiment, only: str | None) -> list[str]:
    """The labels that `--only` names, or all; leaves the program at an unknown one."""
    labels = only.split(",") if only else list(experiment.RUNS)
    if unknown := sorted(set(labels) - set(experiment.RUNS)):
        parser.error(f"no label {unknown}; the labels are {sorted(experiment.RUNS)}")
    return labels


def uses_data(experiment) -> bool:
    """Whether flags of the experiment name the directory of prepared data."""
    groups = (experiment.COMMON, *experiment.RUNS.values())
    return any("{data}" in flag for flags in groups for flag in flags)


def run_all(experiment, labels: list[str], arguments, results: Path, extra: list[str]) -> list[str]:
    """Runs what has no rows yet, seed by seed; returns the names of the runs that failed.

    Raises:
      UserError: the rows of a run are of another config.
    """
    runs = [
        (label, seed)
        for seed in experiment.SEEDS  # so that a part of the sweep can be compared
        for label in labels
        if seed == experiment.SEEDS[0] or label not in getattr(experiment, "ONCE", ())
    ]
    places = (arguments.runs, extra, arguments.data)
    flags = {run: flags_of(experiment, *run, *places) for run in runs}
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
    failed, folder = [], arguments.runs / "claims"
    names = [f"{label}_seed{seed}" for label, seed in runs]
    others = {run: needed(flags[run], names) for run in runs}
    for run in in_turn([run for run in runs if not done.get(run)], others, folder):
        name = f"{run[0]}_seed{run[1]}"
        if (claim := claims.take(folder, name)) is None:
            print(f"{name} is under way elsewhere ({claims.holder(folder, name)})", flush=True)
            continue
        with claims.kept(claim):
            if not arguments.again and rows_file.of_run(rows_file.read(results), *run):
                continue  # another process was faster
            for other in others[run]:
                with claims.exclusive(folder, other):  # it has ended, wherever it ran
                    pass
            test = getattr(experiment, "TEST", {}).get(run[0])
            if status := run_one(*run, flags[run], arguments.runs, results, claim, test):
                failed.append(name)
                last = len(failed) == arguments.most_failures
                then = f"ends after {len(failed)} of them" if last else "goes on"
                print(f"{name} failed with status {status}; the sweep {then}", flush=True)
                if last:
                    break
    return failed


def in_turn(
    runs: Sequence[tuple[str, int]], others: Mapping[tuple[str, int], list[str]], folder: Path
) -> Iterator[tuple[str, int]]:
    """The runs in order, but at the end those that need what is under way elsewhere by then."""
    put_off = []
    for run in runs:
        if any(claims.held(folder, other) for other in others[run]):
            put_off.append(run)
        else:
            yield run
    yield from put_off


def flags_of(
    experiment, label: str, seed: int, runs: Path, extra: list[str], data: Path | None = None
) -> list[str]:
    """The flags of a run's `kdjax.main`; `data` is the directory of prepared data."""
    flags = (*experiment.RUNS[label], *experiment.COMMON)
    flags = [flag.format(runs=runs, data=data, seed=seed) for flag in flags]
    workdir = runs / f"{label}_seed{seed}"
    return [*flags, f"--config.seed={seed}", *extra, f"--workdir={workdir}"]


def needed(flags: list[str], names: list[str]) -> list[str]:
    """The runs of the sweep whose workdirs the settings of a run name, as its teacher's."""
    *settings, workdir = flags
    runs = PurePath(workdir.partition("=")[2]).parent
    return [name for name in names if any(f"{runs / name}" in setting for setting in settings)]


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


def run_one(
    label: str,
    seed: int,
    flags: list[str],
    runs: Path,
    results: Path,
    claim: claims.Claim,
    test: Mapping[str, Any] | None = None,
) -> int:
    """Runs one command line and keeps its rows, tested if asked for; returns its exit status."""
    name = f"{label}_seed{seed}"
    print(name, flush=True)
    status = worker.train(flags, claim)
    if status == 0:
        tested = None if test is None else evaluated(runs / name, test)
        with claims.exclusive(runs / "claims", "rows"):  # other processes write them, too
            others = [
                row
                for row in rows_file.read(results)
                if (row["label"], row["seed"]) != (label, str(seed))
            ]
            mine = rows_file.of_workdir(runs / name, label, seed, tested)
            rows_file.write(results, [*others, *mine])
    return status


def evaluated(workdir: Path, settings: Mapping[str, Any]) -> dict[str, float]:
    """Metrics of a run's best checkpoint with other settings, named as 'data.test_split' is."""
    run = kdjax.load_run(workdir)
    run.config.update_from_flattened_dict(settings)
    return kdjax.evaluate(run)


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
        lines = experiment.table(rows)
    else:
        lines = rows_of_labels(experiment, rows)
    command = f"python -m experiments.sweep {module} --runs DIR"
    if uses_data(experiment):
        command += " --data DATA"
    elif getattr(experiment, "DATA", True):
        command += " --config.data.dir=DATA/tfds"
    flags = "\n".join(f"    {flag}" for flag in experiment.COMMON)
    name = {"top1": "Top-1", "miou": "mIoU"}[metric(experiment)]
    lines += ["", f"{name} in %: mean over seeds of the mean over the networks, +- the standard "]
    lines[-1] += "deviation over seeds. Best epoch: the highest mean, of the epochs evaluated."
    lines += ["", f"Made by `{command}`; flags of all runs:", "", flags, ""]
    for label, own in experiment.RUNS.items():
        lines.append(f"- {label}: `{' '.join(own)}`")
    where = f"Rows: [{rows_file.FILE}]({rows_file.FILE})." if rows else "No rows yet."
    return ["", *lines, "", where, ""]


def metric(experiment) -> str:
    """What the experiment compares: 'top1' or 'miou'."""
    return getattr(experiment, "METRIC", "top1")


def rows_of_labels(experiment, rows: list[rows_file.Row]) -> list[str]:
    """One row for every label."""
    lines = [
        "| method | seeds | last epoch | best epoch | ensemble, last epoch |",
        "|" + "---|" * 5,
    ]
    for label in experiment.RUNS:
        runs = rows_file.of_label(rows, label)
        lines.append(
            f"| {label} | {len(runs)} | {' | '.join(summaries.summary(runs, metric(experiment)))} |"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
