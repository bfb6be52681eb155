"""The loop: what interruptions change (nothing), evaluation, and what it refuses to go on with."""

import os
import re
import signal
import sys

import jax
import numpy as np
import pytest

from experiments import kill_resume
from kdjax import config as configs
from kdjax.data import augment
from kdjax.errors import UserError
from kdjax.methods import Method
from kdjax.parallel import Parallel
from kdjax.runs import contents, metrics
from kdjax.runs import workdir as workdirs
from kdjax.runs.checkpoints import Checkpoints
from kdjax.training import compile_time, first_step, stages
from kdjax.training import step as training
from kdjax.training.building import build
from kdjax.training.preemption import Preempted, Preemption
from kdjax.training.program import network_names
from tests import tiny_runs as runs
from tests.tiny_runs import networks  # noqa: F401

PER_EPOCH = 6


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return runs.write_arrays(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture
def make_config(source):
    def make(**changes):
        config = configs.cifar_run("cross_entropy", "digits,tiny", count=1)
        config.batch_size, config.epochs, config.data.source = 16, 2, source
        config.evaluation.batch_size = 16
        config.update_from_flattened_dict(changes)
        return config

    return make


def interrupt_at(monkeypatch, *steps):
    monkeypatch.setattr(Preemption, "requested", lambda self, step: step in steps)


@pytest.mark.parametrize("step", [4, PER_EPOCH, PER_EPOCH + 1])
def test_interrupted_run_ends_as_the_uninterrupted_one(make_config, tmp_path, monkeypatch, step):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    stages.train(make_config(), whole)
    with monkeypatch.context() as patch:
        interrupt_at(patch, step)
        with pytest.raises(Preempted) as stopped:
            stages.train(make_config(), cut)
    assert stopped.value.code == 143
    assert kill_resume.latest(cut / "checkpoints") == step
    stages.train(make_config(), cut)
    found = kill_resume.differences(whole, cut)
    # The row of an epoch cut in two has the means of its second part.
    assert found == ([] if step == PER_EPOCH else ["metrics.jsonl"])
    assert [row["step"] for row in metrics.read(cut / "metrics.jsonl")] == [6, 12]


def test_other_seeds_are_seen_as_other_runs(make_config, tmp_path):
    stages.train(make_config(epochs=1), tmp_path / "one")
    stages.train(make_config(epochs=1, seed=1), tmp_path / "other")
    found = kill_resume.differences(tmp_path / "one", tmp_path / "other")
    assert "metrics.jsonl" in found and len(found) > 10 and "step" not in found


def test_signal_at_the_last_step_changes_nothing(make_config, tmp_path, monkeypatch):
    interrupt_at(monkeypatch, PER_EPOCH)
    result = stages.train(make_config(epochs=1), tmp_path)
    assert result["mean/top1"] == metrics.read(tmp_path / "metrics.jsonl")[-1]["mean/top1"]


def test_finished_run_is_evaluated_again(make_config, tmp_path):
    first = stages.train(make_config(epochs=1), tmp_path)
    assert stages.train(make_config(epochs=1), tmp_path) == first
    assert len(metrics.read(tmp_path / "metrics.jsonl")) == 1


def test_fewer_epochs_than_a_run_has_change_nothing(make_config, tmp_path):
    stages.train(make_config(epochs=2), tmp_path)
    files = ("config.json", "metrics.jsonl")
    before = [(tmp_path / name).read_text() for name in files]
    with pytest.raises(UserError, match=r"config\.epochs=1: the run in .* for 2 already"):
        stages.train(make_config(epochs=1), tmp_path)
    assert [(tmp_path / name).read_text() for name in files] == before


def test_steps_per_dispatch_changes_rounding_only(make_config):
    states = []
    for steps in (1, 3):
        run = build(make_config(steps_per_dispatch=steps))
        state = run.parallel.replicate(run.init_state())
        for _, batches in run.feed.train(0, 0):
            state, each = run.train_steps(state, run.feed.train_constants(), batches)
        assert each["loss"].shape == (steps,)
        states.append(state)
    assert states[0].step == states[1].step == PER_EPOCH
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)  # noqa: E731
    jax.tree.map(close, states[0].params, states[1].params)


def test_runs_of_all_seeds_share_the_compiled_step(make_config):
    programs, steps = set(), []
    for seed in (0, 1):
        run = build(make_config(seed=seed))
        _, batches = next(run.feed.train(0, 0))
        state, constants = run.abstract_state(), run.feed.train_constants()
        programs.add(run.train_steps.lower(state, constants, batches).as_text())
        steps.append(np.asarray(constants["seed"]).tolist())
    assert len(programs) == 1
    assert steps[0] != steps[1]


def test_the_step_is_compiled_while_the_state_is_made(make_config):
    run = build(make_config())
    constants, (_, batches) = run.feed.train_constants(), next(run.feed.train(0, 0))
    loading = first_step.loading(run, constants)
    state = run.parallel.replicate(run.init_state())
    loading.result()
    before = compile_time.seconds()
    run.train_steps(state, constants, batches)
    assert compile_time.seconds() == before  # nothing is traced, lowered or compiled again
    run.feed.resident = False
    assert first_step.loading(run, constants) is None


@pytest.mark.parametrize("batch_size", [1, 7, 30, 64])
def test_evaluation_counts_every_image_once(make_config, batch_size):
    run = build(make_config(**{"evaluation.batch_size": batch_size}))
    state = run.init_state()
    found = run.evaluate(run.parallel.replicate(state), run.feed.constants("test"))
    test = run.feed.dataset.test
    images = augment.normalize(test.images, run.feed.dataset.mean, run.feed.dataset.std)
    logits = run.method.predict(state.params, state.model_state, images)["network_0"]
    log_probabilities = np.asarray(jax.nn.log_softmax(logits))
    assert found["network_0/top1"] == np.mean(logits.argmax(-1) == test.labels)
    cross_entropy = -log_probabilities[np.arange(30), test.labels].mean()
    np.testing.assert_allclose(found["network_0/cross_entropy"], cross_entropy, rtol=1e-5)
    assert not any(name.endswith("top5") for name in found)  # four classes


def evaluate_logits(logits, labels):
    """The sums of an evaluation step that sees these logits."""
    method = Method(init=None, loss=None, predict=lambda *arguments: {"network_0": logits})
    step = training.evaluation_step(method, lambda constants, batch: (None, labels), 7)
    mask = np.ones((1, 1, len(labels)), np.float32)
    return Parallel("pmap").map(step)(({}, {}), {}, {"mask": mask})


def test_top_five():
    logits = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    labels = np.arange(50) % 7
    best = np.argsort(-logits, axis=-1)[:, :5]
    sums = evaluate_logits(logits, labels)
    assert 0 < sums["network_0/top1"] < sums["network_0/top5"] < sums["count"] == 50
    assert sums["network_0/top5"] == np.sum(best == labels[:, None])


def test_logits_that_are_no_numbers_are_wrong():
    sums = evaluate_logits(np.full((7, 7), np.nan, np.float32), np.arange(1, 8) % 7)
    assert sums["network_0/top5"] == 0


def test_mean_is_over_single_networks():
    names = ["network_0/top1", "ensemble/top1", "network_1/top1", "network_0/top5", "mean/top1"]
    assert network_names(dict.fromkeys(names, 0.5)) == ["network_0", "network_1"]


def test_loss_that_is_not_finite_names_the_last_good_checkpoint(make_config, tmp_path):
    changes = {"schedule": "multistep", "milestones": (1,), "factors": (1e30,), "warm_up_epochs": 0}
    config = make_config(**{f"optimizer.{name}": value for name, value in changes.items()})
    message = r"not finite at step [78]: .*loss.*; the last good checkpoint is step 6; .*workdir"
    with pytest.raises(UserError, match=message):
        stages.train(config, tmp_path)
    assert kill_resume.latest(tmp_path / "checkpoints") == PER_EPOCH
    assert [row["step"] for row in metrics.read(tmp_path / "metrics.jsonl")] == [PER_EPOCH]


# Parameters become infinite; too large for logits; too large for squares.
@pytest.mark.parametrize("factor", [1e38, 1e30, 1e22])
def test_garbage_of_the_last_step_is_neither_saved_nor_the_best(make_config, tmp_path, factor):
    changes = {"schedule": "multistep", "milestones": (1,), "factors": (factor,)}
    changes = {f"optimizer.{name}": value for name, value in changes.items()}
    config = make_config(**changes, **{"batch_size": 96, "optimizer.warm_up_epochs": 0})
    with pytest.raises(UserError, match=r"not finite at step 2: .*; the last good checkpoint is s"):
        stages.train(config, tmp_path)
    assert kill_resume.latest(tmp_path / "checkpoints") == 1
    assert [row["step"] for row in metrics.read(tmp_path / "metrics.jsonl")] == [1]


def test_checkpoints_and_evaluations_as_seldom_as_wished(make_config, tmp_path, monkeypatch):
    save, saved = Checkpoints.save, {}

    def recorded(self, step, state, metrics, metadata):
        saved[step] = metrics
        save(self, step, state, metrics, metadata)

    monkeypatch.setattr(Checkpoints, "save", recorded)
    changes = {"epochs": 5, "checkpoint.every_epochs": 3, "evaluation.every_epochs": 2}
    result = stages.train(make_config(**changes), tmp_path)
    # Nothing was evaluated after epoch 3: its checkpoint cannot be the best one.
    assert saved == {3 * PER_EPOCH: {}, 5 * PER_EPOCH: result}
    assert kill_resume.latest(tmp_path / "checkpoints") == 5 * PER_EPOCH
    rows = metrics.read(tmp_path / "metrics.jsonl")
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["epoch"] for row in rows if "mean/top1" in row] == [2, 4, 5]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("evaluation.best", "mean/top3"),
        ("batch_size", 97),
    ],
)
def test_setting_that_makes_no_run(make_config, tmp_path, name, value):
    with pytest.raises(UserError, match=rf"config\.{name}={value!r}"):
        stages.train(make_config(**{name: value}), tmp_path)
    workdirs.check(tmp_path, make_config())  # the workdir is free for the right settings


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_signals_are_watched_inside_the_block_only(name, capsys):
    number = signal.Signals[name]
    before = signal.getsignal(number)
    with Preemption() as preemption:
        assert not preemption.requested(1)
        os.kill(os.getpid(), number)
        assert preemption.requested(2)
        with pytest.raises(Preempted) as stopped:
            preemption.stop(2)
    assert stopped.value.code == 128 + number
    assert f"stopped by {name}: saved step 2; the same command resumes" in capsys.readouterr().out
    assert signal.getsignal(number) is before


def test_signals_that_nohup_ignores_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Preemption() as preemption:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not preemption.requested(1)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def command(source, **changes):
    changes = {"epochs": 4, "steps_per_dispatch": 1, **changes}
    return [sys.executable, "-m", "tests.tiny_runs.command_line", *runs.settings(source, **changes)]


@pytest.fixture
def environment(monkeypatch):
    """For processes that are started without `runs.start`."""
    monkeypatch.chdir(runs.ROOT)


def test_killed_and_terminated_run_ends_as_the_uninterrupted_one(environment, tmp_path):
    source = runs.write_arrays(tmp_path / "tiny.npz", train=16 * 100)
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    kill_resume.run(command(source), alone)
    process = runs.start(*runs.settings(source, epochs=4), f"--workdir={killed}")
    process.stdout.readline()  # the first epoch's; the run is now in the second
    process.send_signal(signal.SIGTERM)
    (output,) = runs.finish(process, status=143)
    stopped = re.search(r"stopped by SIGTERM: saved step (\d+); the same command resumes", output)
    assert int(stopped[1]) == kill_resume.latest(killed / "checkpoints") < 400
    (kill,) = kill_resume.kill_and_resume(
        "tiny", command(source), killed, killed, [("SIGKILL", None)], seconds=1
    )
    assert kill.faults == ()
    assert set(kill_resume.differences(alone, killed)) <= {"metrics.jsonl"}
    steps = [row["step"] for row in metrics.read(killed / "metrics.jsonl")]
    assert steps == [100, 200, 300, 400]


@pytest.mark.slow
def test_run_killed_ten_times_ends_as_the_uninterrupted_one(environment, tmp_path):
    source = runs.write_arrays(tmp_path / "tiny.npz", train=16 * 50)
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    kill_resume.run(command(source, epochs=40), alone)
    seconds = kill_resume.epoch_seconds(alone)
    aims = [("SIGKILL", part) for part in (0.1, None, 0.3, None, 0.5, None, 0.7, None, 0.9, None)]
    kills = kill_resume.kill_and_resume(
        "tiny", command(source, epochs=40), killed, killed, aims, seconds
    )
    assert not any(kill.faults for kill in kills)
    assert any("half-written" in kill.left for kill in kills)
    assert kill_resume.differences(alone, killed) == []


def test_two_processes_do_not_train_in_one_workdir(tmp_path):
    run = tmp_path / "run"
    taken = pytest.raises(UserError, match="another process writes to")
    with contents.locked(run), taken, contents.locked(run):
        pass
    with contents.locked(run):  # given back
        pass
