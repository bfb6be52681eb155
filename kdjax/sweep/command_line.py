"""The command line of sweeps: every config with every combination of settings and every seed.

    python -m kdjax.sweep --config mcl:digits dml:digits --seeds 0,1,2 \\
        --grid config.optimizer.learning_rate=0.1,0.05 --runs runs/sweep --config.epochs=30

`--grid` may be given several times. All other flags, such as `--config.epochs=30`, go to every run.
The folder of `--runs` gets a workdir per run, `rows.csv` with one row per finished run (settings,
seed, config hash, machine, versions, metrics) and `table.md` with means and standard deviations.

The same command again goes on where it stopped: finished runs are not run again, others resume. The
same command in several processes that see the folder, on one machine or many, shares the runs among
them, for instance `CUDA_VISIBLE_DEVICES=0 python -m kdjax.sweep ...` beside the same with device 1.
What a process that died has claimed is taken over after `--stale_after` seconds. A run that fails
is reported, the others go on, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kdjax.errors import UserError
from kdjax.runs import signals
from kdjax.runs.console import print_line
from kdjax.sweep import claims, grid, table, worker

_NOT_OURS = ("--workdir", "--job", "--config.seed")


def main(argv: list[str]) -> int:
    """Runs the command line; returns the exit status.

    Args:
      argv: the program's name and its arguments.
    """
    try:
        with signals.handled(signals.stop):
            return run(*parsed(argv))
    except signals.Stopped as error:
        print("sweep: stopped; the same command goes on", file=sys.stderr)
        return 128 + error.number
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def parsed(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The arguments of the sweep, and the flags of all runs."""
    what, _, how = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m kdjax.sweep",
        description=what,
        epilog=how,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", nargs="+", required=True, help="as of kdjax; one or more")
    parser.add_argument("--seeds", required=True, help="numbers, with commas: 0,1,2")
    parser.add_argument(
        "--grid", action="append", default=[], help="config.KEY=VALUE,VALUE", metavar="AXIS"
    )
    parser.add_argument("--runs", type=Path, required=True, help="folder of the sweep")
    parser.add_argument(
        "--stale_after",
        type=float,
        default=claims.STALE_AFTER,
        help="seconds without a sign of life after which a run is taken over (%(default)g)",
    )
    return parser.parse_known_args(argv[1:])


def run(arguments: argparse.Namespace, extra: list[str]) -> int:
    """Runs a sweep, or what is left of it; returns 1 if a run failed, else 0.

    Raises:
      UserError: an argument is bad, or the folder cannot be used.
    """
    for flag in extra:
        if flag.partition("=")[0] in _NOT_OURS:
            raise UserError(f"{flag}: a sweep sets it itself; see --runs and --seeds")
    if arguments.stale_after <= 0:
        raise UserError(f"--stale_after={arguments.stale_after}: give seconds, more than 0")
    runs = grid.runs(arguments.config, arguments.grid, _seeds(arguments.seeds), extra)
    wanted = worker.hashes(runs)
    done = worker.check_finished(arguments.runs, wanted)
    print_line(f"sweep: {len(runs)} runs, {done} of them finished before")
    outcome = worker.work(runs, arguments.runs, stale_after=arguments.stale_after)
    finished = [row for row in worker.read(arguments.runs).values() if row["run"] in wanted]
    if finished:
        print_line(table.markdown(finished).rstrip())
    for name, holder in outcome.elsewhere.items():
        print_line(f"sweep: {name} is under way elsewhere ({holder})")
    for name, status in outcome.failed.items():
        print_line(f"sweep: {name} failed with status {status}; see {arguments.runs / name}")
    return int(bool(outcome.failed))


def _seeds(text: str) -> list[int]:
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError as error:
        raise UserError(f"--seeds={text}: give numbers with commas between, as 0,1,2") from error
