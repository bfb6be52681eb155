"""Runs of MCL beyond the batch: nearest neighbors, resumption, the command line, devices."""

from __future__ import annotations

import numpy as np
import pytest

from experiments import kill_resume
from kdjax import config as configs
from kdjax.data import augment
from kdjax.errors import UserError
from kdjax.runs import metrics
from kdjax.training import stages
from kdjax.training.building import build
from kdjax.training.preemption import Preempted, Preemption
from tests import tiny_runs as runs
from tests.tiny_runs import networks  # noqa: F401

METHODS = ("mcl_memory", "moco", "simclr")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return runs.write_arrays(tmp_path_factory.mktemp("data") / "tiny.npz")


def make(source, name, **changes):
    config = configs.cifar_run(name, "digits,tiny", count=2)
    config.batch_size, config.epochs, config.data.source = 16, 2, source
    config.evaluation.batch_size = 16
    config.mcl_memory.negatives, config.moco.queue = 8, 24
    if name != "mcl_memory":
        config.data.augmentation = "contrastive"
    config.update_from_flattened_dict(changes)
    return config


def test_accuracy_is_that_of_the_nearest_training_images(source):
    run = build(make(source, "moco", **{"evaluation.neighbors": 7}))
    state = run.init_state()
    found = run.evaluate(run.parallel.replicate(state), run.feed.constants("test"))
    assert sorted(found) == ["mean/top1", "network_0/top1", "network_1/top1"]
    dataset = run.feed.dataset
    splits = (dataset.train, dataset.test)
    for name in ("network_0", "network_1"):
        known, asked = (
            np.asarray(
                run.method.embeddings(
                    state.params,
                    state.model_state,
                    augment.normalize(split.images, dataset.mean, dataset.std),
                )[name],
                np.float64,
            )
            for split in splits
        )
        known, asked = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (known, asked))
        similarity = asked @ known.T
        correct = 0
        for row, label in zip(similarity, dataset.test.labels, strict=True):
            nearest = np.argsort(-row)[:7]
            votes = np.zeros(runs.CLASSES)
            np.add.at(votes, dataset.train.labels[nearest], np.exp(row[nearest] / 0.07))
            correct += votes.argmax() == label
        np.testing.assert_allclose(found[f"{name}/top1"], correct / 30, atol=1e-6)
    with pytest.raises(UserError, match="split='train': without classifiers"):
        run.evaluate(run.parallel.replicate(state), run.feed.constants("train"), split="train")


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_interrupted_run_ends_as_the_uninterrupted_one(source, tmp_path, monkeypatch, name):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    stages.train(make(source, name), whole)
    with monkeypatch.context() as patch:
        patch.setattr(Preemption, "requested", lambda self, step: step == 4)
        with pytest.raises(Preempted):
            stages.train(make(source, name), cut)
    stages.train(make(source, name), cut)
    # The row of the epoch that was cut has the means of its second part.
    assert kill_resume.differences(whole, cut) == ["metrics.jsonl"]
    rows = [metrics.read(path / "metrics.jsonl")[-1] for path in (whole, cut)]
    for row in rows:
        row.pop("images_per_second")
    assert rows[0] == rows[1] and 0 < rows[0]["mean/top1"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("file", ["mcl_imagenet", "moco_mcl", "simclr_mcl"])
def test_digits_from_the_command_line(call, tmp_path, file):
    short = ("--config.epochs=1", "--config.data.train_fraction=0.1", "--config.batch_size=30")
    status, output, errors = call(
        f"--config={runs.ROOT}/configs/{file}.py:digits,tiny", f"--workdir={tmp_path}", *short
    )
    assert (status, errors) == (0, [])
    assert "epoch 1/1" in output and "network_1  top-1" in output


@pytest.fixture(scope="module")
def states(source, tmp_path_factory):
    """State before and after three steps of every method, on one device and on eight."""
    module, path = "tests.tiny_runs.three_steps", tmp_path_factory.mktemp("devices")
    source = runs.write_arrays(path / "tiny.npz", train=48)
    for name, devices in (("one", 1), ("eight", 8)):
        (path / name).mkdir()
        kinds = [f"pmap+{method}" for method in METHODS]
        runs.finish(runs.start(source, path / name, *kinds, module=module, devices=devices))
    return {f"{p.parent.name}/{p.stem}": dict(np.load(p)) for p in path.glob("*/*.npz")}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_eight_devices_train_and_remember_as_one_does(states, name):
    one, eight = (states[f"{devices}/pmap+{name}"] for devices in ("one", "eight"))
    moved = 0
    for place, after in one.items():
        if not place.startswith("after"):
            continue
        before = one["before" + place.removeprefix("after")]
        size = np.abs(after - before).max()
        assert np.abs(after - eight[place]).max() <= 2e-4 * size, place
        moved += size > 0
    arrays = len(one) // 2
    # Without labels, classifiers do not learn: their weights decay, their biases may be zero.
    assert moved >= (arrays if name == "mcl_memory" else arrays - 4)
