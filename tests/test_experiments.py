"""What experiments keep of their runs, and make of it: rows, tables and pictures."""

import importlib
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from experiments import camvid, curves, episodes, fit, mcl_full, pruning_plots, returning, sweep
from experiments.benchmark import steps as benchmark
from kdjax import config as configs
from kdjax import pruning
from kdjax.cli.command_line import parse
from kdjax.sweep import claims, rows, summaries, worker
from kdjax.training import stages
from kdjax.training.step import TrainState
from tests.tiny_runs import networks  # noqa: F401
from tests.tiny_runs import pruning as pruning_runs

EXPERIMENT = types.SimpleNamespace(
    TITLE="A title",
    SEEDS=(0, 1),
    COMMON=("--config.epochs=1",),
    RUNS={
        "first": ("--config=configs/cross_entropy.py:digits,resnet8",),
        "second": ("--config=configs/cross_entropy.py:digits,resnet20",),
        "third": ("--config=configs/cross_entropy.py:digits,resnet32",),
    },
)


def row(epoch, top1, **more):
    accuracies = {} if top1 is None else {"mean/top1": top1, "network_0/top1": top1}
    return {"epoch": epoch, "step": 10 * epoch, **accuracies, **more}


def write(path, *rows):
    path.write_text("".join(f"{json.dumps(each)}\n" for each in rows))


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Two seeds of the first label, one of the second, none of the third; a few epochs each."""
    monkeypatch.setattr(sweep, "RESULTS", tmp_path)
    monkeypatch.setitem(sys.modules, "experiments.named", EXPERIMENT)
    results = tmp_path / "named"
    results.mkdir()
    logs = {
        ("first", 0): (row(1, None), row(2, 0.5), row(4, 0.4)),
        ("first", 1): (row(1, None), row(2, 0.1), row(4, 0.6), row(6, 0.5)),
        ("second", 0): (row(2, 0.25, **{"ensemble/top1": 0.3}),),
    }
    written = []
    for (label, seed), log in logs.items():
        written += rows.evaluated(log, {"label": label, "seed": str(seed)})
    rows.write(results, written)
    return results


def test_rows_come_back_as_they_were_written(tmp_path):
    about = {"label": 'a "b", c', "seed": "3"}
    log = [row(1, None, other=1.0), row(2, 0.1 + 0.2, other=-1e-30)]
    rows.write(tmp_path, rows.evaluated(log, about))
    (found,) = rows.read(tmp_path)
    assert (found["label"], found["seed"], found["config_hash"]) == (about["label"], "3", "")
    assert rows.of_label([found], about["label"]) == [
        [
            {
                "epoch": 2,
                "step": 20,
                "mean/top1": 0.1 + 0.2,
                "network_0/top1": 0.1 + 0.2,
                "other": -1e-30,
            }
        ]
    ]
    assert rows.read(tmp_path / "nowhere") == []


def test_the_hash_is_of_what_is_computed():
    config = configs.plain(configs.cifar_run("mcl", "digits", count=2))
    hashes = [rows.config_hash(config)]
    assert hashes[0] == rows.config_hash(config | {"data": config["data"] | {"dir": "DATA"}})
    # A setting that kdjax had not, or will have, at its default.
    assert hashes[0] == rows.config_hash({k: v for k, v in config.items() if k != "dml"})
    # The same data elsewhere.
    here, there = (
        rows.config_hash(config | {"data": config["data"] | {"source": f"arrays:{place}/a.npz"}})
        for place in ("here", "/there")
    )
    assert here == there
    hashes.append(here)
    for changed in ({"seed": 1}, {"mcl": config["mcl"] | {"alpha": 0.2}}, {"new": 1}):
        hashes.append(rows.config_hash(config | changed))
    assert len(set(hashes)) == 5


def test_a_table_is_made_of_the_rows_that_are_there(results):
    page = results / "README.md"
    page.write_text(f"# Title\n\nA note.\n\n{sweep.BEGIN}\nold\n{sweep.END}\nBelow.\n")
    for _ in range(2):
        sweep.write_page(EXPERIMENT, "experiments.named", results)
    lines = page.read_text().splitlines()
    assert "A note." in lines and lines[-1] == "Below." and "old" not in lines
    assert "| first | 2 | 45.00 +- 7.07 | 55.00 +- 7.07 |  |" in lines
    assert "| second | 1 | 25.00 | 25.00 | 30.00 |" in lines
    assert "| third | 0 |  |  |  |" in lines
    assert "- first: `--config=configs/cross_entropy.py:digits,resnet8`" in lines
    page.write_text("no markers")
    with pytest.raises(SystemExit, match="no markers"):
        sweep.write_page(EXPERIMENT, "experiments.named", results)
    assert page.read_text() == "no markers"
    page.unlink()
    sweep.write_page(EXPERIMENT, "experiments.named", results)
    assert page.read_text().startswith("# A title\n")


_FULL = ["mcl_full", "mcl_collapse", "hsakd_full", "mixskd_full", "pruning_full"]
_FULL += ["few_shot", "bfloat16_cifar100"]


@pytest.mark.parametrize("module", _FULL)
def test_the_flags_of_full_experiments_are_valid(module, tmp_path):
    experiment = importlib.import_module(f"experiments.{module}")
    for label in experiment.RUNS:
        flags = sweep.flags_of(experiment, label, 0, tmp_path, [], Path("data"))
        configs.validate(parse(["kdjax", *flags]).config)


@pytest.mark.parametrize(
    "module",
    [f"experiments.{p.parent.name}" for p in sorted(sweep.RESULTS.glob("*/README.md"))],
)
def test_pages_hold_the_tables_of_their_rows(module):
    results = sweep.RESULTS / module.rpartition(".")[2]
    experiment = importlib.import_module(module)
    expected = "\n".join(sweep.table(experiment, module, results))
    text = (results / "README.md").read_text()
    assert text.partition(sweep.BEGIN)[2].partition(sweep.END)[0] == f"\n{expected}\n"


class Sweep:
    """Runs `sweep.main`; what would train leaves a workdir with one row instead."""

    def __init__(self, tmp_path, monkeypatch, capsys):
        self.runs, self.capsys, self.started = tmp_path / "runs", capsys, []
        monkeypatch.setattr(worker, "train", self.train)
        self.failing = ()

    def train(self, flags, claim):
        values = parse(["kdjax", *flags])
        workdir = Path(values.workdir)
        self.started.append(workdir.name)
        if workdir.name in self.failing:
            return 2
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / "config.json").write_text(json.dumps(configs.plain(values.config)))
        (workdir / "versions.json").write_text(json.dumps({"jax": "1.2", "device": "card"}))
        write(workdir / "metrics.jsonl", row(1, 0.125))
        return 0

    def __call__(self, *flags):
        self.started.clear()
        status = sweep.main(["experiments.named", "--runs", str(self.runs), *flags])
        return status, self.capsys.readouterr().out


@pytest.fixture
def run_sweep(results, tmp_path, monkeypatch, capsys):
    return Sweep(tmp_path, monkeypatch, capsys)


def test_a_sweep_runs_what_has_no_rows_and_says_what_has(run_sweep, results):
    status, output = run_sweep()
    assert status == 0
    assert run_sweep.started == ["third_seed0", "second_seed1", "third_seed1"]
    assert "3 of 6 runs have rows" in output and "(3 of them without a config hash" in output
    assert "--again" in output
    (kept,) = rows.of_run(rows.read(results), "third", 1)
    assert (kept["mean/top1"], kept["jax"], kept["device"]) == ("0.125", "1.2", "card")
    assert len(kept["config_hash"]) == 16
    status, output = run_sweep("--only", "third")
    assert (status, run_sweep.started) == (0, []) and "2 of 2 runs have rows" in output


def test_a_failing_run_does_not_end_the_sweep(run_sweep, results):
    run_sweep.failing = ("third_seed0",)
    held = claims.take(run_sweep.runs / "claims", "second_seed1")
    status, output = run_sweep()
    assert status == 1 and run_sweep.started == ["third_seed0", "third_seed1"]
    assert "third_seed0 failed with status 2; the sweep goes on" in output
    assert "second_seed1 is under way elsewhere" in output
    held.release()
    run_sweep.failing = ()
    assert run_sweep()[0] == 0 and run_sweep.started == ["third_seed0", "second_seed1"]


def test_what_needs_a_run_under_way_elsewhere_comes_last(tmp_path):
    runs = [("student", 0), ("other", 0), ("student", 1)]
    others = {runs[0]: ["teacher_seed0"], runs[1]: [], runs[2]: ["teacher_seed1"]}
    assert list(sweep.in_turn(runs, others, tmp_path / "claims")) == runs
    held = claims.take(tmp_path / "claims", "teacher_seed0")
    assert list(sweep.in_turn(runs, others, tmp_path / "claims")) == [*runs[1:], runs[0]]
    held.release()
    assert list(sweep.in_turn(runs, others, tmp_path / "claims")) == runs


def test_so_many_failures_end_the_sweep(run_sweep):
    run_sweep.failing = ("third_seed0",)
    status, output = run_sweep("--most-failures", "1")
    assert status == 1 and run_sweep.started == ["third_seed0"]
    assert "third_seed0 failed with status 2; the sweep ends after 1 of them" in output


def test_rows_of_another_config_are_refused(run_sweep, results, capsys):
    run_sweep("--only", "third")
    before = (results / rows.FILE).read_text()
    with pytest.raises(SystemExit, match="2"):
        run_sweep("--only", "second,third", "--config.batch_size=20")
    (line,) = capsys.readouterr().err.splitlines()
    assert "third, seed 0 has rows of config" in line and "--again" in line
    assert run_sweep.started == [] and (results / rows.FILE).read_text() == before
    status, _ = run_sweep("--only", "third", "--config.batch_size=20", "--again")
    assert (status, run_sweep.started) == (0, ["third_seed0", "third_seed1"])
    assert len(rows.of_run(rows.read(results), "third", 0)) == 1
    assert (results / rows.FILE).read_text() != before


def test_the_best_checkpoint_is_tested_on_other_images(run_sweep, results, monkeypatch, capsys):
    tests = []

    def evaluated(workdir, settings):
        tests.append((workdir.name, settings))
        return {"step": 10, "epoch": 1, "mean/miou": 0.25, "network_0/iou/sky": 0.5}

    monkeypatch.setattr(sweep, "evaluated", evaluated)
    settings = {"data.test_split": "val"}
    experiment = types.SimpleNamespace(
        **vars(EXPERIMENT) | {"RUNS": {"first": (), "third": (*EXPERIMENT.RUNS["third"],)}},
        TEST={"third": settings},
    )
    experiment.RUNS["third"] += ("--config.data.dir={data}/prepared",)
    monkeypatch.setitem(sys.modules, "experiments.named", experiment)
    with pytest.raises(SystemExit, match="2"):
        run_sweep("--only", "third")
    assert "--data: name the directory" in capsys.readouterr().err
    status, _ = run_sweep("--only", "third", "--data", "DATA")
    assert (status, tests) == (0, [("third_seed0", settings), ("third_seed1", settings)])
    runs = rows.of_label(rows.read(results), "third")
    assert summaries.tested(runs, "mean/miou") == [0.25, 0.25]
    assert summaries.tested(runs, "network_0/iou/sky") == [0.5, 0.5]
    assert summaries.tested(runs, "network_0/iou/car") == []
    config = json.loads((run_sweep.runs / "third_seed0" / "config.json").read_text())
    assert config["data"]["dir"] == "DATA/prepared"


def test_the_table_of_camvid():
    log = [{"epoch": e, "step": e, "mean/miou": m} for e, m in ((1, 0.3), (2, 0.5), (3, 0.4))]
    log[1] |= {"test/mean/miou": 0.45, "test/network_0/iou/sky": 0.9}
    written = rows.evaluated(log, {"label": "mixup", "seed": "0"})
    written += rows.evaluated([row(1, 0.625)], {"label": "mixup_backbone", "seed": "0"})
    lines = camvid.table(written)
    assert "| mixup | 62.50 | 1 | 50.00 | 45.00 |" in lines
    assert "| random |  | 0 |  |  |" in lines
    assert "| sky |  |  | 90.00 |  |" in lines


def test_the_table_of_l_mcl_has_its_heads():
    heads = {"": 0.5, "branch1/": 0.25, "branch2/": 0.375, "ensemble/": 0.625}
    tops = {f"network_{i}/{h}top1": value + i / 8 for h, value in heads.items() for i in range(2)}
    log = [row(1, 0.125), row(2, 0.5, **tops)]
    lines = mcl_full.table(rows.evaluated(log, {"label": "lmcl", "seed": "0"}))
    assert "| lmcl | 1 | 50.00 | 50.00 |  |" in lines
    assert lines[-1] == "| last epoch | 31.25 | 43.75 | 56.25 | 68.75 |"


def test_an_unknown_label(results, capsys):
    with pytest.raises(SystemExit, match="2"):
        sweep.main(["experiments.named", "--runs", "runs", "--only", "first,fourth"])
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.endswith("no label ['fourth']; the labels are ['first', 'second', 'third']")


def test_episodes_of_the_runs_that_are_there(tmp_path, monkeypatch, capsys):
    def run(command, **_):
        flags = dict(flag.removeprefix("--").split("=") for flag in command[3:])
        assert flags["config"] == "configs/few_shot.py:arrays:DATA/cifar100_train.npz,80"
        first = 0.5 if flags["config.few_shot.shots"] == "1" else 0.75
        first += 0.0625 * flags["workdir"].endswith("seed1")
        of = {
            f"network_{i}": {"embedding": {"mean": first + i / 8, "interval": 0.01}} for i in (0, 1)
        }
        output = Path(flags["output"])
        output.mkdir()
        (output / "few_shot.json").write_text(json.dumps({"accuracy": of}))

    monkeypatch.setattr(episodes.subprocess, "run", run)
    for name in ("mcl_seed0", "mcl_seed1"):
        (tmp_path / name).mkdir()
    episodes.main([f"--runs={tmp_path}", "--data=DATA"])
    _, cross_entropy, *mcl = (line.split() for line in capsys.readouterr().out.splitlines())
    assert cross_entropy == ["cross_entropy"]
    assert mcl[0] == ["mcl_seed0", "56.25", "+-", "1.00", "81.25", "+-", "1.00"]
    assert mcl[2] == ["mcl", "59.38", "+-", "4.42", "84.38", "+-", "4.42"]


def test_curves_go_as_far_as_all_seeds_do(results):
    found = curves.points(rows.of_label(rows.read(results), "first"))
    np.testing.assert_allclose(found, [[2, 30, 10, 50], [4, 50, 40, 60]])


def test_a_picture_of_curves(results, monkeypatch, tmp_path, capsys):
    output = tmp_path / "curves.png"
    drawn = []
    monkeypatch.setattr(
        curves, "figure", lambda found, make=curves.figure: drawn.append(found) or make(found)
    )
    arguments = ["experiments.named", "--only", "first,second", "--output", str(output)]
    assert curves.main(arguments) == 0
    assert output.read_bytes().startswith(b"\x89PNG")
    assert list(drawn[0]) == ["first (2)", "second (1)"]
    with pytest.raises(SystemExit, match="2"):
        curves.main(["experiments.named", "--only", "third"])
    assert "no rows of ['third']" in capsys.readouterr().err


def test_a_picture_of_pruning(tmp_path, capsys):
    run = tmp_path / "ghfp"
    run.mkdir()
    values = {"pruning/rate": 0.4, "pruning/hard_fraction": 0.5, "pruning/norm_pruned": 0.0}
    write(run / "metrics.jsonl", *(row(epoch, 0.5, **values) for epoch in (1, 2)))
    name, read = pruning_plots.read(str(run))
    assert (name, len(read)) == ("ghfp", 2)
    above, middle, below = (axes.get_lines() for axes in pruning_plots.figure([(name, read)]).axes)
    assert [line.get_label() for line in above] == ["rate", "hard fraction"]
    np.testing.assert_array_equal(above[1].get_xydata(), [[1, 0.5], [2, 0.5]])
    np.testing.assert_array_equal(middle[0].get_ydata(), [0, 0])
    np.testing.assert_array_equal(below[0].get_ydata(), [50, 50])
    output = tmp_path / "pruning.png"
    assert pruning_plots.main([str(run), "--output", str(output)]) == 0
    assert output.read_bytes().startswith(b"\x89PNG")

    write(run / "metrics.jsonl", row(1, 0.5))
    with pytest.raises(SystemExit, match="2"):
        pruning_plots.main([str(run)])
    assert "has no metrics of pruning" in capsys.readouterr().err


def test_norms_of_returning_filters():
    kernel = np.zeros((1, 1, 2, 3), np.float32)
    kernel[0, 0] = [[3, 0, 6], [4, 1, 8]]
    masks = {"net/conv": np.array([True, False, True])}
    pruned = pruning.PruningState(np.zeros((), np.int32), masks, masks)
    state = TrainState(0, {"net": {"conv": {"kernel": kernel}}}, {}, (pruned,))
    assert returning.norms(state) == pytest.approx((7.5, 1.0))


@pytest.mark.slow
def test_returning_filters_of_a_run(tmp_path, capsys):
    workdir = tmp_path / "sfp"
    stages.train(pruning_runs.config(pruning_runs.written(tmp_path), "sfp", epochs=1), workdir)
    capsys.readouterr()
    returning.main([str(workdir), "--epochs=1"])
    first, _, *rows = capsys.readouterr().out.splitlines()
    assert first == "sfp: pruned after every 6 steps"
    steps, kept, pruned = zip(*(map(float, row.split()) for row in rows), strict=True)
    assert steps == (1, 5, 6)
    assert pruned[-1] == 0 < min(pruned[:-1]) and min(kept) > 0


@pytest.mark.slow
def test_fit_to_training_images(tmp_path, capsys):
    draw = np.random.default_rng(0)
    learned, unknown = draw.integers(0, 256, (2, 64, 8, 8, 3), np.uint8)
    labels = np.tile(np.arange(4), 16)
    np.savez(
        tmp_path / "set.npz",
        train_images=learned,
        train_labels=labels,
        test_images=unknown,
        test_labels=labels,
    )
    workdir = tmp_path / "learned"
    config = configs.cifar_run("cross_entropy", "digits,resnet8", count=1)
    config.data.source = f"arrays:{tmp_path / 'set.npz'}"
    config.data.augmentation = "none"
    config.update(epochs=12, batch_size=16)
    stages.train(config, workdir)

    fit.main([str(workdir)])
    name, network, *numbers = capsys.readouterr().out.splitlines()[-1].split()
    train, train_entropy, test, test_entropy = map(float, numbers)
    assert (name, network) == ("learned", "network_0")
    assert train > 90 and train_entropy < 0.5
    assert test < 60 and test_entropy > 1
    with pytest.raises(SystemExit, match="2"):
        fit.main([])


@pytest.mark.slow
def test_the_benchmark_measures_methods_and_names_what_it_cannot(tmp_path, capsys):
    output = tmp_path / "table.txt"
    methods = ["dml", "ghfp", "kd", "linear_probe", "detection"]
    flags = ["--smoke", f"--output={output}", "--methods", *methods]
    assert benchmark.main(flags) == 0, capsys.readouterr().out
    rows = json.loads(output.with_suffix(".json").read_text())
    for row in rows[:4]:
        assert all(row[name] > 0 for name, _, _ in benchmark.COLUMNS if name != "method")
        assert row["host"] < 1 and f"{row['method']} " in output.read_text()
    assert "needs a network of four stages" in rows[4]["refused"]


@pytest.mark.slow
def test_the_benchmark_measures_detection():
    """Which needs a network of four stages."""
    figures = benchmark.measure("detection", benchmark.SMOKE._replace(network="tiny_four"))
    assert figures["ms"] > 0 and figures["compile_s"] > 0 and figures["gflops_per_s"] > 0
    assert 0 <= figures["host"] < 1
