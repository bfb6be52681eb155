"""What experiments make of the logs of their runs: tables and pictures."""

import json
import sys
import types

import numpy as np
import pytest

from experiments import curves, fit, pruning_plots, returning, sweep
from kdjax import config as configs
from kdjax import pruning
from kdjax.training import stages
from kdjax.training.step import TrainState

EXPERIMENT = types.SimpleNamespace(
    TITLE="A title",
    NOTE="\nA note.\n",
    SEEDS=(0, 1),
    COMMON=("--config.epochs=2",),
    RUNS={"first": ("--config=configs/sfp.py",), "second": (), "third": ()},
)


def row(epoch, top1, **more):
    accuracies = {} if top1 is None else {"mean/top1": top1, "network_0/top1": top1}
    return {"epoch": epoch, "step": 10 * epoch, **accuracies, **more}


def write(path, *rows):
    path.write_text("".join(f"{json.dumps(each)}\n" for each in rows))


@pytest.fixture
def logs(tmp_path, monkeypatch):
    """Two seeds of the first label, one of the second, none of the third; a few epochs each."""
    monkeypatch.setattr(sweep, "RESULTS", tmp_path)
    monkeypatch.setitem(sys.modules, "experiments.named", EXPERIMENT)
    results = tmp_path / "named"
    results.mkdir()
    write(results / "first_seed0.jsonl", row(1, None), row(2, 0.5), row(4, 0.4))
    write(results / "first_seed1.jsonl", row(1, None), row(2, 0.1), row(4, 0.6), row(6, 0.5))
    write(results / "second_seed0.jsonl", row(2, 0.25, **{"ensemble/top1": 0.3}))
    return results


def test_a_table_is_made_of_the_logs_that_are_there(logs):
    sweep.write_table(EXPERIMENT, "experiments.named", logs)
    lines = (logs / "README.md").read_text().splitlines()
    assert "| first | 2 | 45.00 +- 7.07 | 55.00 +- 7.07 |  |" in lines
    assert "| second | 1 | 25.00 | 25.00 | 30.00 |" in lines
    assert "| third | 0 |  |  |  |" in lines
    assert "- first: `--config=configs/sfp.py`" in lines


def test_an_unknown_label(logs, capsys):
    with pytest.raises(SystemExit, match="2"):
        sweep.main(["experiments.named", "--runs", "runs", "--only", "first,fourth"])
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.endswith("no label ['fourth']; the labels are ['first', 'second', 'third']")


def test_curves_go_as_far_as_all_seeds_do(logs):
    found = curves.points(sweep.evaluated(logs, "first"))
    np.testing.assert_allclose(found, [[2, 30, 10, 50], [4, 50, 40, 60]])


def test_a_picture_of_curves(logs, monkeypatch, tmp_path, capsys):
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
    assert "no log of ['third']" in capsys.readouterr().err


def test_a_picture_of_pruning(tmp_path, capsys):
    run = tmp_path / "ghfp"
    run.mkdir()
    values = {"pruning/rate": 0.4, "pruning/hard_fraction": 0.5, "pruning/norm_pruned": 0.0}
    write(run / "metrics.jsonl", *(row(epoch, 0.5, **values) for epoch in (1, 2)))
    name, rows = pruning_plots.read(str(run))
    assert (name, len(rows)) == ("ghfp", 2)
    above, middle, below = (axes.get_lines() for axes in pruning_plots.figure([(name, rows)]).axes)
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
    with pytest.raises(SystemExit, match="of every workdir"):
        fit.main([])
