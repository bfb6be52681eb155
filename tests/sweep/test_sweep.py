"""Sweeps: combinations, what is resumed, shared and reported; rows and table of a folder."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdjax import config as configs
from kdjax.cli.command_line import parse
from kdjax.errors import UserError
from kdjax.main import import_path
from kdjax.sweep import claims, command_line, grid, table, worker
from kdjax.sweep.__main__ import one_flag_each
from tests import tiny_runs

AXIS = "config.optimizer.learning_rate=0.1,0.05"
BASE = ["sweep", "--config", "cross_entropy:digits", "dml:digits", "--seeds=0,1"]


def test_every_combination_is_a_run_and_seeds_come_last():
    runs = grid.runs(["mcl:digits"], [AXIS, "config.epochs=1,2"], [0, 3], ["--config.x=1"])
    assert [(run.seed, run.label) for run in runs[:2]] == [
        (0, "mcl_digits_learning_rate=0.1_epochs=1"),
        (0, "mcl_digits_learning_rate=0.1_epochs=2"),
    ]
    assert len(runs) == 8 and len({run.name for run in runs}) == 8
    assert runs[-1].flags == (
        *("--config=mcl:digits", "--config.x=1", "--config.optimizer.learning_rate=0.05"),
        *("--config.epochs=2", "--config.seed=3"),
    )


def test_values_with_commas_and_names_of_files():
    assert grid.axis("config.networks=('a','b'),('c',)") == (
        "config.networks",
        ["('a','b')", "('c',)"],
    )
    first, second = grid.runs(["mine.py"], ["config.networks=('a','b'),('a',)"], [0], [])
    for run in (first, second):
        assert run.name == os.path.basename(run.name) and "(" not in run.name
    assert first.name != second.name
    assert grid.runs(["mine/my.py:a,b"], [], [0], [])[0].name == "mine_my_a_b_seed0"
    with pytest.raises(UserError, match="mcl_a_b_seed0 would be the name of two runs"):
        grid.runs(["mcl:a,b", "mcl:a_b"], [], [0], [])
    both = grid.runs(["m"], ["config.a.rate=1,2", "config.b.rate=3"], [0], [])
    assert both[0].label == "m_config.a.rate=1_config.b.rate=3"


@pytest.mark.parametrize(
    ("axes", "extra", "message"),
    [
        (["epochs=1"], [], "config.KEY=VALUE"),
        (["config.epochs="], [], "config.KEY=VALUE"),
        (["config.epochs=1,1"], [], "a value comes twice"),
        (["config.epochs=1", "config.epochs=2"], [], "entry twice"),
        (["config.seed=1"], [], "set by another flag"),
        (["config.epochs=1"], ["--config.epochs=2"], "set by another flag"),
    ],
)
def test_grids_that_are_refused(axes, extra, message):
    with pytest.raises(UserError, match=message):
        grid.runs(["mcl"], axes, [0], extra)


@pytest.fixture
def sweep(tmp_path, monkeypatch, capsys):
    """Runs a sweep; what would train leaves a workdir with two rows instead."""
    started, failing = [], []

    def train(flags, claim, command=()):
        values = parse(["kdjax", *flags])
        workdir = Path(values.workdir)
        started.append(workdir.name)
        if workdir.name in failing:
            return 3
        workdir.mkdir(parents=True)
        (workdir / "config.json").write_text(json.dumps(configs.plain(values.config)))
        (workdir / "versions.json").write_text(json.dumps({"jax": "1.2", "device": "card"}))
        rate, seed = values.config.optimizer.learning_rate, values.config.seed
        top1 = [0.5 + rate + seed / 10, 0.5 + seed / 10]
        lines = [{"step": i, "epoch": i, "mean/top1": x} for i, x in enumerate(top1, 1)]
        (workdir / "metrics.jsonl").write_text("".join(f"{json.dumps(x)}\n" for x in lines))
        return 0

    def run(*flags):
        started.clear()
        status = command_line.main([*BASE, f"--runs={tmp_path / 'runs'}", *flags])
        return status, capsys.readouterr()

    monkeypatch.setattr(worker, "train", train)
    run.started, run.failing, run.folder = started, failing, tmp_path / "runs"
    return run


def test_rows_and_table(sweep):
    status, output = sweep("--grid", AXIS, "--config.batch_size=20")
    assert status == 0 and len(sweep.started) == 8
    rows = list(csv.DictReader((sweep.folder / "rows.csv").read_text().splitlines()))
    (row,) = (r for r in rows if r["run"] == "dml_digits_learning_rate=0.05_seed1")
    assert (row["config"], row["config.optimizer.learning_rate"]) == ("dml:digits", "0.05")
    assert (row["seed"], row["jax"], row["device"], row["epoch"]) == ("1", "1.2", "card", "2")
    assert (row["mean/top1"], row["best/epoch"]) == ("0.6", "1")
    assert float(row["best/mean/top1"]) == pytest.approx(0.65)
    assert len({r["config_hash"] for r in rows}) == len(rows) == 8
    lines = (sweep.folder / table.FILE).read_text().splitlines()
    assert len(lines) == 6 and lines[2] == (
        "| cross_entropy:digits | 0.05 | 2 | mean/top1, % | 55.00 +- 7.07 | 60.00 +- 7.07 |"
    )
    assert lines[2] in output.out
    status, output = sweep("--grid", AXIS, "--config.batch_size=20")
    assert status == 0 and sweep.started == [] and "8 of them finished before" in output.out


def test_a_failing_run_is_reported_and_the_sweep_goes_on(sweep):
    sweep.failing.append("cross_entropy_digits_seed0")
    status, output = sweep()
    assert status == 1 and len(sweep.started) == 4
    assert "cross_entropy_digits_seed0 failed with status 3; see" in output.out
    sweep.failing.clear()
    assert sweep()[0] == 0 and sweep.started == ["cross_entropy_digits_seed0"]


def test_runs_of_other_processes_are_left_to_them(sweep):
    held = claims.take(sweep.folder / "claims", "dml_digits_seed1")
    status, output = sweep()
    assert status == 0 and len(sweep.started) == 3
    assert "dml_digits_seed1 is under way elsewhere" in output.out
    held.release()
    assert sweep()[0] == 0 and sweep.started == ["dml_digits_seed1"]
    assert len(worker.read(sweep.folder)) == 4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds=a"], "--seeds=a"),
        (["--workdir=x"], "a sweep sets it itself"),
        (["--config.no_such=1"], "no_such"),
        (["--config.epochs=-1"], "config.epochs=-1"),
        (["--stale_after=0"], "--stale_after"),
        (["--grid", "config.epochs=1,no"], "epochs"),
    ],
)
def test_bad_flags_start_nothing(sweep, flags, message):
    status, output = sweep(*flags)
    assert status == 2 and sweep.started == [] and message in output.err
    assert output.err.startswith("error: ") and output.err.count("\n") == 1


def test_finished_runs_of_another_config_are_refused(sweep):
    assert sweep()[0] == 0
    status, output = sweep("--config.batch_size=20")
    assert status == 2 and "is finished with config" in output.err and sweep.started == []


def test_every_config_file_may_import_its_neighbors():
    flags = ["sweep", "--config", "a/x.py", "b/y.py:z", "--seeds", "0"]
    configs_of = one_flag_each(flags)
    assert configs_of == ["sweep", "--config=a/x.py", "--config=b/y.py:z", "--seeds", "0"]
    path = import_path(["/lib"], configs_of)
    assert [Path(each).name for each in path if each != os.getcwd()] == ["lib", "a", "b"]


def test_a_run_ends_when_its_claim_is_lost(tmp_path):
    claim = claims.take(tmp_path, "run")
    claim.lost.set()
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert worker.train([], claim, command) == -signal.SIGTERM


@pytest.mark.slow
def test_two_processes_share_a_sweep_and_one_that_is_stopped_goes_on(tmp_path):
    """The real command line, on the tiny network, on data of its own."""
    config = tmp_path / "tiny.py"
    config.write_text(
        "import tests.tiny_runs.networks\n"
        "from kdjax.configs import cross_entropy\n"
        "def get_config(argument='digits,tiny'):\n"
        "    return cross_entropy.get_config(argument)\n"
    )
    source = tiny_runs.write_arrays(tmp_path / "set.npz")
    flags = [flag for flag in tiny_runs.settings(source) if not flag.startswith("--config=")]
    command = [
        *(sys.executable, "-m", "kdjax.sweep", "--config", str(config), "--seeds=0,1"),
        *("--grid", AXIS, f"--runs={tmp_path / 'runs'}", *flags),
    ]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}

    def start():
        return subprocess.Popen(
            command, env=environment, cwd=tiny_runs.ROOT, stdout=subprocess.PIPE, text=True
        )

    stopped = start()
    deadline = time.monotonic() + 120
    while not list((tmp_path / "runs").glob("claims/*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    stopped.send_signal(signal.SIGTERM)
    stopped.communicate(timeout=120)
    assert stopped.returncode == 128 + signal.SIGTERM
    tiny_runs.finish(start(), start())
    finished = worker.read(tmp_path / "runs")
    assert len(finished) == 4
    rows = list(csv.DictReader((tmp_path / "runs" / "rows.csv").read_text().splitlines()))
    assert {row["run"] for row in rows} == set(finished)
