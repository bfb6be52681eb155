"""Training that starts from trained weights."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from experiments import kill_resume
from kdjax import models
from kdjax import networks as trained_networks
from kdjax.compaction import filter_groups, remove_filters
from kdjax.errors import UserError
from kdjax.networks import Network
from kdjax.training import evaluation, stages
from kdjax.training.building import build
from kdjax.tree import leaves
from tests import tiny_runs as runs
from tests.networks import saved
from tests.tiny_runs import pruning

IMAGES = np.zeros((1, 8, 8, 3), np.float32)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return pruning.written(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def save(tmp_path_factory):
    """Writes a network with random weights; returns it and its directory."""

    def save(name, num_classes=runs.CLASSES, zeros=False):
        network = saved.network(name, num_classes)
        module = network.module()
        if zeros:
            for group in filter_groups(module):
                leaves(network.variables["params"])[f"{group.name}/kernel"][..., 0] = 0
            smaller = remove_filters(module, network.variables)
            compaction = smaller.network.compaction
            spec = dataclasses.replace(network.spec, compaction=compaction)
            network = Network(spec, smaller.variables)
        directory = tmp_path_factory.mktemp("trained") / name
        trained_networks.save(directory, network, {})
        return directory, network

    return save


def start_config(source, directory, method="", **changes):
    config = pruning.config(source, "sfp", **changes)
    config.pruning.method = method
    config.pruning.rate = config.pruning.rate if method else 0.4
    config.start.checkpoint = str(directory)
    return config


def initial(config):
    """Parameters and statistics of the only network before training, by their paths."""
    state = build(config).init_state()
    trees = (state.params["cohort"], state.model_state["batch_stats"])
    return {p: x for tree in trees for part in tree.values() for p, x in leaves(part).items()}


def of(network):
    return leaves(network.variables["params"]) | leaves(network.variables["batch_stats"])


@pytest.mark.parametrize("shared_stages", [0, 2])
def test_a_network_starts_from_all_its_weights(source, save, shared_stages):
    directory, network = save("tiny")
    config = start_config(source, directory, shared_stages=shared_stages)
    found, expected = initial(config), of(network)
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(found[path], array)


def test_they_are_pruned_before_training(source, save):
    directory, network = save("tiny")
    found, expected = initial(start_config(source, directory, "sfp")), of(network)
    for path, array in expected.items():
        zero = (found[path] == 0) & (array != 0)
        np.testing.assert_array_equal(np.where(zero, 0, array), found[path])
        pruned = array.ndim == 4 and "shortcut" not in path
        assert zero.mean() == (0.5 if pruned else 0)
        if pruned:  # the smaller half
            norms = np.square(array).sum((0, 1, 2))
            smallest = set(np.argsort(norms)[: len(norms) // 2])
            assert set(np.flatnonzero(zero.all((0, 1, 2)))) == smallest


@pytest.mark.slow
def test_branches_start_as_ever(source, save):
    directory, network = save("tiny")
    own = initial(start_config(source, directory, learner="mixskd"))
    for path, array in of(network).items():
        np.testing.assert_array_equal(own[f"backbone/{path}"], array)
    ever = start_config(source, "", learner="mixskd")
    ever = initial(ever)
    assert ever.keys() == own.keys()
    for path in ever.keys() - {f"backbone/{path}" for path in of(network)}:
        np.testing.assert_array_equal(own[path], ever[path])


def test_a_network_starts_from_one_with_branches(source, save):
    directory, network = save("tiny_aux")
    found = initial(start_config(source, directory))
    expected = of(network.backbone)
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(found[path], array)


@pytest.mark.slow
def test_branches_start_from_branches(source, save):
    directory, network = save("tiny_aux")
    found = initial(start_config(source, directory, learner="hssakd_teacher"))
    for path, array in of(network).items():
        np.testing.assert_array_equal(found[path], array)


@pytest.mark.slow
def test_a_run_starts_where_another_ended(source, tmp_path):
    config = start_config(source, "", epochs=2)
    ended = stages.train(config, tmp_path / "dense")
    config = start_config(source, tmp_path / "dense", epochs=1)
    config.start.version = "latest"
    config.optimizer.learning_rate, config.optimizer.weight_decay = 1e-30, 0.0
    run = build(config)
    state = run.parallel.replicate(run.init_state())
    assert run.evaluate(state, run.feed.constants("test")) == pytest.approx(ended)
    last = stages.train(config, tmp_path / "on")
    # What it started from is needed no more.
    (tmp_path / "dense").rename(tmp_path / "elsewhere")
    again = evaluation.evaluate(evaluation.load_run(tmp_path / "on"), checkpoint="latest")
    assert again["mean/top1"] == last["mean/top1"]


def test_a_compact_network_starts_from_all_its_weights(source, save):
    directory, network = save("tiny", zeros=True)
    config = start_config(source, directory)
    found, expected = initial(config), of(network)
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(found[path], array)
    assert build(config).compactions == {"network_0": network.spec.compaction}


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_filters_that_a_compact_network_lacks_count_as_pruned(source, save, rate):
    directory, _ = save("tiny", zeros=True)
    found = initial(start_config(source, directory, "sfp", pruning__rate=rate))
    whole = of(save("tiny")[1])
    for group in filter_groups(models.create("tiny", num_classes=runs.CLASSES)):
        path = f"{group.name}/kernel"
        count, left = whole[path].shape[-1], found[path].shape[-1]
        zero = int((found[path] == 0).all((0, 1, 2)).sum())
        assert count - left + zero == max(int(rate * count), count - left)


@pytest.mark.slow
@pytest.mark.parametrize("learner", ["cross_entropy", "kd"])
def test_a_compact_network_trains_on(source, save, tmp_path, learner):
    """Cut off, taken up, evaluated and loaded, without what it started from."""
    directory, network = save("tiny", zeros=True)
    teacher, _ = save("resnet8")
    changes = {"learner": learner, "teacher__checkpoint": str(teacher) if learner == "kd" else ""}
    config = start_config(source, directory, epochs=2, **changes)
    metrics = stages.train(config, tmp_path / "whole")
    stages.train(start_config(source, directory, epochs=1, **changes), tmp_path / "part")
    stages.train(config, tmp_path / "part")
    assert kill_resume.differences(tmp_path / "whole", tmp_path / "part") == []
    directory.rename(tmp_path / "elsewhere")
    found = evaluation.evaluate(evaluation.load_run(tmp_path / "part"), checkpoint="latest")
    assert found["mean/top1"] == pytest.approx(metrics["mean/top1"])
    trained = trained_networks.load(tmp_path / "part", checkpoint="latest")
    assert trained.spec.compaction == network.spec.compaction
    moved = {path: np.abs(array - of(network)[path]).max() for path, array in of(trained).items()}
    assert all(moved.values())


@pytest.mark.parametrize(
    ("kept", "changes", "message"),
    [
        (("tiny",), {"networks": ("tiny", "tiny")}, "takes one network in config.networks"),
        (("tiny",), {"networks": ("resnet8",)}, "holds tiny, not the resnet8 of config.networks"),
        (("resnet8",), {}, "holds resnet8, not the tiny of config.networks"),
        (("tiny", 5), {}, "tiny has 5 classes, the data has 4"),
        (("tiny_aux6",), {"learner": "hssakd_teacher"}, "whose arrays are not those of config.net"),
        (("tiny_aux",), {"learner": "mixskd"}, "whose arrays are not those of config.net"),
        (("tiny",), {"start__version": "first"}, "config.start.version='first' is unknown"),
        (
            ("tiny", runs.CLASSES, True),
            {"networks": ("resnet8",)},
            "holds tiny, not the resnet8 of config.networks",
        ),
        (
            ("tiny", runs.CLASSES, True),
            {"learner": "mixskd"},
            "a tiny that was made smaller, of which config.method reads more than the logits",
        ),
    ],
)
def test_weights_that_are_no_start(source, save, tmp_path, kept, changes, message):
    directory, _ = save(*kept)
    config = start_config(source, directory, **changes)
    with pytest.raises(UserError, match=message) as error:
        stages.train(config, tmp_path / "run")
    assert "\n" not in str(error.value) and "config.start" in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_start_that_is_not_there(source, tmp_path):
    with pytest.raises(UserError, match="nowhere holds no network"):
        build(start_config(source, tmp_path / "nowhere"))


def test_the_start_is_not_the_teacher(source, save):
    """Its own section; the teacher that is trained first starts from random weights."""
    directory, _ = save("tiny")
    config = start_config(source, directory, "hfp", learner="kd")
    config.teacher.network = "tiny"
    own = stages.teachers.config_of_teacher(config)
    assert (own.start.checkpoint, own.pruning.method) == ("", "")
    jax.tree.map(np.shape, build(own).abstract_state())
