"""Linear probes: only classifiers learn, and what comes out is a whole network."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from kdjax import config as configs
from kdjax import networks as trained_networks
from kdjax.cli.main import main
from kdjax.compaction import filter_groups, remove_filters
from kdjax.errors import UserError
from kdjax.methods import CONSTANTS, create, use
from kdjax.networks import InputSpec, Network, Normalization
from kdjax.training import evaluation
from kdjax.tree import leaves
from tests import tiny_runs as runs
from tests.networks import saved
from tests.tiny_runs import networks  # noqa: F401 (registers 'tiny')

IMAGES = InputSpec((8, 8), 3, Normalization((0.5, 0.25, 0.5), (0.5, 0.25, 0.125)))
SMALL = (
    *("epochs=3", "data.train_fraction=0.2", "batch_size=32", "linear_probe.stages=(1,)"),
    *("optimizer.learning_rate=0.1", "optimizer.milestones=(3,4,5)"),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network of 7 classes with random weights, and its directory."""
    directory = tmp_path_factory.mktemp("trained") / "tiny"
    network = saved.network("tiny", 7, IMAGES)
    trained_networks.save(directory, network, {})
    return directory, network


def config_of(directory, **changes):
    config = configs.base()
    use(config, "linear_probe")
    config.networks, config.batch_size = ("tiny",), 16
    config.start.checkpoint = str(directory)
    flat = {name.replace("__", "."): value for name, value in changes.items()}
    config.update_from_flattened_dict(flat)
    return config


def method_of(config, num_classes=runs.CLASSES, compactions=None):
    return create(config, num_classes=num_classes, axis_name=None, compactions=compactions)


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    """The workdir of `configs/linear_probe.py:digits,DIR`, but for its length."""
    workdir = tmp_path_factory.mktemp("runs") / "probe"
    flags = [f"--config={runs.ROOT}/configs/linear_probe.py:digits,{trained[0]}"]
    flags += [f"--config.{each}" for each in SMALL]
    assert main(["kdjax", *flags, f"--workdir={workdir}"]) == 0
    return workdir


def test_a_probe_is_the_trained_network_with_another_classifier(trained, run):
    _, network = trained
    probed = trained_networks.load(run)
    assert (probed.spec.name, probed.spec.num_classes) == ("tiny", 10)
    assert probed.spec.input == IMAGES  # images are those of the network's training
    before, after = leaves(network.variables), leaves(probed.variables)
    assert before.keys() == after.keys()
    for path, array in before.items():
        if "classifier" in path:
            assert after[path].shape[-1] == 10 and np.abs(after[path]).max() > 0.05
        else:
            np.testing.assert_array_equal(array, after[path])


def test_a_probe_is_evaluated_without_what_it_started_from(trained, run, call, tmp_path):
    (row,) = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][-1:]
    assert row["mean/top1"] == row["network_0/top1"]
    assert "network_0/stage1/top1" in row
    directory, _ = trained
    directory.rename(tmp_path / "elsewhere")
    try:
        found = evaluation.evaluate(evaluation.load_run(run), checkpoint="latest")
    finally:
        (tmp_path / "elsewhere").rename(directory)
    for name in ("network_0/top1", "network_0/stage1/top1", "network_0/cross_entropy"):
        assert found[name] == pytest.approx(row[name])


def test_logits_are_linear_in_the_frozen_features(trained):
    directory, network = trained
    method = method_of(config_of(directory, linear_probe__stages=(2, 1)))
    random = np.random.default_rng(0)
    images = random.normal(size=(5, 8, 8, 3)).astype(np.float32)
    params, state = jax.jit(method.init)(jax.random.key(0), images)
    batch = {"image": images, "label": np.arange(5) % runs.CLASSES}
    key = jax.random.key(1)
    grads, (updated, metrics) = jax.jit(jax.grad(method.loss, has_aux=True))(
        params, state, batch, key
    )
    jax.tree.map(np.testing.assert_array_equal, updated, state)
    assert set(params) == {"classifier", "heads"} and set(state) == {CONSTANTS}
    outputs = network.module().apply(network.variables, images)
    vectors = {
        "network_0": np.asarray(outputs.embedding),
        "network_0/stage1": np.asarray(outputs.features["stage1"]).mean((1, 2)),
        "network_0/stage2": np.asarray(outputs.features["stage2"]).mean((1, 2)),
    }
    logits = method.predict(params, state, images)
    assert logits.keys() == vectors.keys()
    for name, x in vectors.items():
        stage = name.removeprefix("network_0").removeprefix("/")
        layer = params["heads"][stage] if stage else params["classifier"]
        np.testing.assert_allclose(logits[name], x @ layer["kernel"] + layer["bias"], atol=1e-4)
        # The gradient of softmax regression: no other classifier is in it.
        error = jax.nn.softmax(logits[name]) - np.eye(runs.CLASSES)[batch["label"]]
        wanted = x.T @ error / 5
        gradient = grads["heads"][stage] if stage else grads["classifier"]
        np.testing.assert_allclose(gradient["kernel"], wanted, atol=1e-4)
    assert set(metrics) == {"cross_entropy"} | {f"{name}/accuracy" for name in vectors}


def test_networks_with_branches_are_probed_without_them(tmp_path):
    network = saved.network("tiny_aux", 7)
    trained_networks.save(tmp_path / "aux", network, {})
    method = method_of(config_of(tmp_path / "aux"), num_classes=7)
    params, state = jax.jit(method.init)(jax.random.key(0), np.zeros((2, 8, 8, 3), np.float32))
    inside = leaves(network.backbone.variables["params"])
    for path, array in leaves(state[CONSTANTS]["params"]).items():
        np.testing.assert_array_equal(array, inside[path])
    # A trained classifier is not taken over, even if it is for as many classes.
    assert not params["classifier"]["bias"].any()


@pytest.mark.slow
def test_compact_networks_are_probed(tmp_path):
    whole = saved.network("tiny", 7)
    for group in filter_groups(whole.module()):
        leaves(whole.variables["params"])[f"{group.name}/kernel"][..., 0] = 0
    smaller = remove_filters(whole.module(), whole.variables)
    spec = dataclasses.replace(whole.spec, compaction=smaller.network.compaction)
    trained_networks.save(tmp_path / "compact", Network(spec, smaller.variables), {})
    method = method_of(config_of(tmp_path / "compact"))
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype(np.float32)
    params, state = jax.jit(method.init)(jax.random.key(0), images)
    embedding = whole.module().apply(whole.variables, images).embedding
    layer, logits = params["classifier"], method.predict(params, state, images)["network_0"]
    assert layer["kernel"].shape[0] == embedding.shape[-1]
    np.testing.assert_allclose(logits, embedding @ layer["kernel"] + layer["bias"], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start__checkpoint": ""}, r"config\.start\.checkpoint is missing: name the workdir"),
        ({"pruning__method": "sfp"}, r"config\.pruning\.method='sfp': the network .* is frozen"),
        ({"networks": ("tiny", "tiny")}, "takes one network in config.networks"),
        ({"networks": ("resnet8",)}, "holds tiny, not the resnet8 of config.networks"),
        ({"linear_probe__stages": (3,)}, r"stages=\(3,\): the network has stages 1\.\.2"),
        ({"linear_probe__stages": (1, 1)}, r"stages=\(1, 1\) names a stage twice"),
        ({"linear_probe__stages": (0,)}, r"stages=\(0,\): must be at least 1"),
    ],
)
def test_what_cannot_be_probed(trained, changes, message):
    with pytest.raises(UserError, match=message):
        method_of(config_of(trained[0], **changes))


def test_images_of_other_channels_are_refused(trained):
    method = method_of(config_of(trained[0]))
    images = jax.ShapeDtypeStruct((2, 8, 8, 1), np.float32)
    with pytest.raises(UserError, match=r"not those of config\.networks: params/stem_conv"):
        jax.eval_shape(method.init, jax.random.key(0), images)


def test_other_arguments_are_refused(call, trained, tmp_path):
    flag = f"--config={runs.ROOT}/configs/linear_probe.py"
    for argument, message in (
        ("digits,nowhere", "nowhere holds no network"),
        (f"digits,{trained[0]},moco", "recipe='moco' is unknown"),
        ("", "config.start.checkpoint is missing"),
    ):
        colon = ":" if argument else ""
        status, _, errors = call(f"{flag}{colon}{argument}", f"--workdir={tmp_path / 'run'}")
        assert status == 2 and len(errors) == 1 and message in errors[0]
    assert not (tmp_path / "run").exists()
