"""Runs whose networks become smaller: the same as the masked ones, whatever interrupts them."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from experiments import kill_resume
from kdjax import models
from kdjax.errors import UserError
from kdjax.networks import load, metadata
from kdjax.pruning import pruning_state
from kdjax.runs import metrics
from kdjax.runs.checkpoints import Checkpoints
from kdjax.training import evaluation, shrinking, stages
from kdjax.training.building import build
from kdjax.training.preemption import Preempted, Preemption
from kdjax.training.program import Program
from tests import tiny_runs as runs
from tests.tiny_runs import pruning
from tests.tiny_runs.pruning import PER_EPOCH

slow = pytest.mark.slow
IMAGES = np.random.default_rng(0).normal(size=(5, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return pruning.written(tmp_path_factory.mktemp("data"))


def shrinking_config(source, method="hfp", *, epochs=(2,), filters="conv_bn", **changes):
    changes = {"pruning__filters": filters, "pruning__shrink_epochs": epochs} | changes
    return pruning.config(source, method, **changes)


# Seeds with which rounding stays rounding. With seed 0 of "ghfp, residual" a momentum is 0.6 % off
# in the end, as where rounding turns a ReLU on; with 1 and 2 nothing is, by a hundredth of that.
CASES = {
    "hfp": {"filters": "coupled"},
    "mcl": {"learner": "mcl", "seed": 1},
    "global": {"filters": "coupled", "pruning__scope": "global"},
    "ghfp": {"method": "ghfp", "epochs": (2, 3)},
    "ghfp, residual": {"method": "ghfp", "filters": "coupled", "epochs": (1, 2, 3), "seed": 1},
    "asrfp": {"method": "ghfp", "pruning__base": "asrfp", "epochs": (2, 3)},
    "mcl, ghfp": {"learner": "mcl", "method": "ghfp", "seed": 1},
}


@pytest.fixture(scope="module")
def finished(source, tmp_path_factory):
    """The workdirs of a case's run, and of the same run that never shrinks."""

    @functools.cache
    def finished(case):
        path = tmp_path_factory.mktemp("runs")
        for name, changes in (("small", {}), ("masked", {"epochs": ()})):
            stages.train(shrinking_config(source, **CASES[case] | changes), path / name)
        return path / "small", path / "masked"

    return finished


def latest(workdir, config, which="latest"):
    """The run as it is at a checkpoint, and its state."""
    checkpoints = Checkpoints(workdir / "checkpoints", "mean/top1", read_only=True)
    left = metadata.compactions_of(checkpoints.metadata(checkpoints.step(which)))
    run = build(config, compactions=left)
    _, state = checkpoints.restore(run.abstract_state(), which)
    checkpoints.close()
    return run, state


def close(actual, expected, scale=1e-3):
    """Up to the rounding of float32, over the steps of a run."""

    def compare(a, b):
        assert a.shape == b.shape
        np.testing.assert_allclose(
            a, b, rtol=scale, atol=scale * max(np.abs(b).max(initial=0), 1e-3)
        )

    jax.tree.map(compare, actual, expected)


def quick(*cases):
    return [name if name == "hfp" else pytest.param(name, marks=slow) for name in cases]


@pytest.mark.parametrize("case", quick(*CASES))
def test_a_run_that_shrinks_is_the_masked_run(finished, case):
    """Losses, accuracies, norms and counts of filters."""
    small, masked = finished(case)
    rows, expected = (metrics.read(path / "metrics.jsonl") for path in (small, masked))
    for row, like in zip(rows, expected, strict=True):
        assert row.keys() == like.keys()
        for name in row.keys() - {"images_per_second", "pruning/filters_removed"}:
            np.testing.assert_allclose(row[name], like[name], rtol=1e-3, atol=1e-6, err_msg=name)
    removed = [row["pruning/filters_removed"] for row in rows]
    first = CASES[case].get("epochs", (2,))[0]
    assert not any(removed[:first]) and 0 < removed[first] <= removed[-1]
    assert not any(row["pruning/filters_removed"] for row in expected)


@pytest.mark.parametrize("case", quick(*CASES))
def test_the_state_is_that_of_the_masked_run(source, finished, case):
    """Parameters, momentum, statistics and masks, once all that is hard is gone from both."""
    small, masked = finished(case)
    config = shrinking_config(source, **CASES[case])
    run, state = latest(masked, config)
    whole = models.parameter_count(state.params["cohort"])
    left, expected, _ = shrinking.shrink(run, state)
    run, state = latest(small, config)
    assert models.parameter_count(state.params["cohort"]) < 0.85 * whole
    of_small, state, _ = shrinking.shrink(run, state)
    assert of_small == left
    # No sum has become narrow because its few filters agree by chance.
    narrow = any(each.sums for each in left.values())
    assert narrow == (CASES[case].get("filters") == "coupled")
    close(state, expected)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(state.opt_state[0])) > 0.01


def test_half_of_the_network_is_gone(source, finished):
    """With residual sums, half of the filters make a quarter of the weights."""
    small, masked = finished("hfp")
    _, state = latest(small, shrinking_config(source, **CASES["hfp"]))
    shapes = {
        "stem_conv": (3, 3, 3, 2),
        "stage1_block0/conv1": (3, 3, 2, 2),
        "stage2_block0/conv1": (3, 3, 2, 4),
        "stage2_block0/conv2": (3, 3, 4, 4),
        "stage2_block0/shortcut_conv": (1, 1, 2, 4),
        "classifier": (4, runs.CLASSES),
    }
    for tree in (state.params, state.opt_state[0][1][0].trace):
        for path, shape in shapes.items():
            node = tree["cohort"]["network_0"]
            for key in path.split("/"):
                node = node[key]
            assert node["kernel"].shape == shape, path
    assert all(mask.all() for mask in pruning_state(state.opt_state).masks.values())
    assert load(small, checkpoint="latest").spec.compaction is not None
    assert load(masked, checkpoint="latest").spec.compaction is None


def interrupted(monkeypatch, config, workdir, step):
    with monkeypatch.context() as patch:
        patch.setattr(Preemption, "requested", lambda self, at: at == step)
        with pytest.raises(Preempted):
            stages.train(config, workdir)
    assert kill_resume.latest(workdir / "checkpoints") == step


def same(whole, other, *, cut):
    """Bit-identical; the row of an epoch that is cut in two has the means of its second part."""
    assert kill_resume.differences(whole, other) == (["metrics.jsonl"] if cut else [])
    specs = [load(directory, checkpoint="latest").spec for directory in (whole, other)]
    assert specs[0] == specs[1]
    steps = [row["step"] for row in metrics.read(other / "metrics.jsonl")]
    assert steps == [PER_EPOCH * epoch for epoch in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    "step", [2 * PER_EPOCH, *(pytest.param(each, marks=slow) for each in (8, 15, 18, 20))]
)
def test_an_interrupted_run_ends_as_the_whole_one(source, finished, tmp_path, monkeypatch, step):
    case = "hfp" if step == 2 * PER_EPOCH else "ghfp"
    config = shrinking_config(source, **CASES[case])
    interrupted(monkeypatch, config, tmp_path, step)
    stages.train(config, tmp_path)
    same(finished(case)[0], tmp_path, cut=step % PER_EPOCH)


def killed(monkeypatch, config, workdir, step):
    """A run that ends before the checkpoint of a step."""
    save = Checkpoints.save

    def killed(self, at, *arguments):
        if at == step:
            raise KeyboardInterrupt
        save(self, at, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            stages.train(config, workdir)


@slow
def test_a_run_killed_before_its_checkpoint_ends_as_the_whole_one(
    source, finished, tmp_path, monkeypatch
):
    """A network is as its checkpoint says, whatever was made of it since."""
    config = shrinking_config(source, **CASES["hfp"])
    killed(monkeypatch, config, tmp_path, 2 * PER_EPOCH)
    assert kill_resume.latest(tmp_path / "checkpoints") == PER_EPOCH
    run = evaluation.load_run(tmp_path)
    assert evaluation.evaluate(run, checkpoint="latest")["step"] == PER_EPOCH
    assert load(tmp_path, checkpoint="latest").spec.compaction is None
    stages.train(config, tmp_path)
    same(finished("hfp")[0], tmp_path, cut=False)


def test_checkpoints_of_different_shapes(source, tmp_path, monkeypatch):
    """The best one is whole, the latest one small; both are evaluated and loaded."""
    evaluate, scores = Program.evaluate, iter([0.9, 0.8, 0.7, 0.6])
    config = shrinking_config(source, **CASES["hfp"])

    def scored(*arguments):
        return evaluate(*arguments) | {"mean/top1": next(scores)}

    with monkeypatch.context() as patch:
        patch.setattr(Program, "evaluate", scored)
        stages.train(config, tmp_path)
    rows = metrics.read(tmp_path / "metrics.jsonl")
    widths = {}
    for which, row in (("best", rows[0]), ("latest", rows[-1])):
        found = evaluation.evaluate(evaluation.load_run(tmp_path), checkpoint=which)
        assert found["step"] == row["step"]
        assert found["network_0/top1"] == row["network_0/top1"]
        loss = "network_0/cross_entropy"
        assert found[loss] == pytest.approx(row[loss], rel=1e-5)
        network = load(tmp_path, checkpoint=which)
        assert (network.spec.compaction is None) == (which == "best")
        outputs = jax.jit(network.module().apply)(network.variables, IMAGES)
        widths[which] = outputs.embedding.shape[-1]
        run, state = latest(tmp_path, config, which)
        logits = jax.jit(run.method.predict)(state.params, state.model_state, IMAGES)
        np.testing.assert_allclose(logits["network_0"], outputs.logits, rtol=1e-4, atol=1e-5)
    assert widths == {"best": 8, "latest": 4}


@slow
def test_a_run_from_trained_weights_shrinks(source, tmp_path):
    config = shrinking_config(source, **CASES["hfp"] | {"epochs": ()}, start__checkpoint="")
    stages.train(config, tmp_path / "dense")
    config = shrinking_config(source, start__checkpoint=str(tmp_path / "dense"))
    stages.train(config, tmp_path / "run")
    assert load(tmp_path / "run", checkpoint="latest").spec.compaction is not None


@slow
def test_the_command_line_says_how_small(source, tmp_path):
    flags = [
        f"--config={runs.ROOT}/configs/hfp.py:digits,tiny,0.5",
        *runs.settings(source, data__image_size=0)[1:],
        *("--config.pruning.filters=conv_bn", "--config.pruning.shrink_epochs=(1,)"),
        f"--workdir={tmp_path / 'run'}",
    ]
    (output,) = runs.finish(runs.start(*flags))
    lines = output.splitlines()
    told = [number for number, line in enumerate(lines) if "filters that are left" in line]
    assert [lines[number] for number in told] == ["filters that are left: network_0 36 -> 22"]
    epochs = [number for number, line in enumerate(lines) if line.startswith("epoch ")]
    assert epochs[0] < told[0] < epochs[1]
    evaluation = ("--job=evaluate", "--checkpoint=latest", f"--workdir={tmp_path / 'run'}")
    (output,) = runs.finish(runs.start(*evaluation))
    assert "network_0  top-1" in output


# What is refused

BRANCHES = "networks of method '{}' have branches"
READS = "method '{}' reads channels that would be removed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "sfp"}, "filters of method 'sfp' return"),
        ({"learner": "hssakd_online"}, BRANCHES.format("hssakd_online")),
        ({"learner": "mixskd"}, BRANCHES.format("mixskd")),
        ({"learner": "mcl", "filters": "coupled"}, READS.format("mcl")),
        ({"learner": "sad", "filters": "coupled"}, READS.format("sad")),
        ({"learner": "sad", "networks": ("vgg8",), "data__image_size": 32}, READS.format("sad")),
    ],
)
def test_runs_that_cannot_shrink(source, tmp_path, capsys, changes, message):
    config = shrinking_config(source, **changes)
    with pytest.raises(UserError, match=message) as error:
        stages.train(config, tmp_path / "run")
    assert "\n" not in str(error.value) and "config.pruning.shrink_epochs" in str(error.value)
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"learner": "mcl", "filters": "conv_bn"},
        {"learner": "sad", "filters": "conv_bn"},
        {"learner": "dml", "networks": ("tiny", "resnet8"), "filters": "coupled"},
        {"networks": ("vgg8",), "data__image_size": 32},
    ],
)
def test_runs_that_can(source, tmp_path, capsys, changes):
    run = build(shrinking_config(source, **changes))
    shrinking.check(run)
    assert run.compactions == {} and capsys.readouterr().out == ""
