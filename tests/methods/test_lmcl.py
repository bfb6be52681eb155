"""L-MCL as a method. Its losses and the hyper-gradient are tested with the golden numbers."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from experiments import kill_resume
from kdjax import config as configs
from kdjax import methods, models
from kdjax.errors import UserError
from kdjax.methods.registry import Clock
from kdjax.runs import metrics
from kdjax.training import stages
from kdjax.training.preemption import Preempted, Preemption
from tests import tiny_runs as runs
from tests.models import helpers
from tests.tiny_runs import networks  # noqa: F401 (registers 'tiny')

IMAGES = np.random.default_rng(1).normal(size=(8, 8, 8, 3)).astype(np.float32)
BATCH = {
    "image": IMAGES,
    "label": np.repeat(np.arange(4), 2).astype(np.int32),
    "index": np.arange(8, dtype=np.int32),
}
RATE, PER_EPOCH = 0.05, 7
MOMENTUM = 0.9


def method(axis_name: str | None = None, **options) -> methods.Method:
    """Two networks of two stages, whose meta network learns every five steps."""
    network = helpers.tiny(blocks=(1, 1), widths=(4, 8), axis_name=axis_name)
    options = {"projection_features": 8, "meta_features": 8, "meta_interval": 5} | options
    return methods.lmcl(
        models.Cohort((network,) * 2),
        clock=Clock(56, PER_EPOCH, 3),
        schedule=lambda step: RATE,
        axis_name=axis_name,
        **options,
    )


@functools.cache
def started() -> tuple[dict, dict]:
    return helpers.random_variables(method(), IMAGES)


@functools.cache
def stepped():
    """`(loss, (updated state, metrics)), gradients` of one step."""
    run = jax.jit(jax.value_and_grad(method().loss, has_aux=True))
    return run(*started(), BATCH | {"step": np.int32(0)}, jax.random.key(0))


@functools.cache
def updater():
    """`after_update` of one device, by step."""
    return jax.jit(lambda step: method().after_update(*started(), BATCH | {"step": step}, None))


def test_terms_add_up_and_the_meta_network_stays():
    (loss, (updated, values)), gradients = stepped()
    weights = {"vcl": 0.1, "icl": 0.1, "cross_entropy": 1, "distillation": 1}
    weights |= {"soft_vcl": 1, "soft_icl": 1}
    total = sum(weight * values[term] for term, weight in weights.items())
    np.testing.assert_allclose(loss, total, rtol=1e-5)
    assert 0.26 < values["layer_weight"] < 0.74
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))
    assert set(gradients) == {"cohort", "heads", "aggregators"}
    jax.tree.map(np.testing.assert_array_equal, updated["meta"], started()[1]["meta"])


def test_predictions_are_of_networks_branches_and_ensembles():
    found = jax.eval_shape(method().predict, *started(), IMAGES)
    own = {f"network_{i}{part}" for i in range(2) for part in ("", "/branch1", "/ensemble")}
    assert set(found) == own | {"ensemble"}
    assert {each.shape for each in found.values()} == {(8, 5)}


@pytest.mark.parametrize("change", ["shared stages", "one stage", "no schedule"])
def test_refusals(change):
    network = helpers.tiny(blocks=(1,), widths=(4,)) if change == "one stage" else helpers.tiny()
    cohort = models.Cohort((network,) * 2, shared_stages=int(change == "shared stages"))
    clock = Clock(8, 2, 1)
    if change != "no schedule":
        with pytest.raises(UserError, match=r"config\.shared_stages|two stages or more"):
            methods.lmcl(cohort, clock=clock)
        return
    made = methods.lmcl(cohort, clock=clock)
    with pytest.raises(ValueError, match="give a schedule"):
        made.after_update({}, {"meta": {}}, {"step": 0}, None)


@pytest.mark.slow
def test_meta_steps_come_at_their_interval_and_are_those_of_nesterov():
    """From zero momentum phi moves by (1 + momentum) times the gradient and its decay."""
    before = started()[1] | {"meta": started()[1]["meta"]}
    for step, moves in {0: True, 4: False, 5: True, 6: False, PER_EPOCH: True}.items():
        after = updater()(np.int32(step))
        same = jax.tree.map(np.array_equal, after["meta"]["params"], before["meta"]["params"])
        assert all(not each if moves else each for each in jax.tree.leaves(same))
        for name in set(before) - {"meta"}:
            jax.tree.map(np.testing.assert_array_equal, after[name], before[name])
    after, old = updater()(np.int32(0))["meta"], before["meta"]

    def moved(param, start, trace, momentum):
        update = (trace - MOMENTUM * momentum) + MOMENTUM * trace
        np.testing.assert_allclose(param, start - RATE * update, rtol=1e-4, atol=1e-6)

    jax.tree.map(moved, after["params"], old["params"], after["momentum"], old["momentum"])


@pytest.mark.slow
def test_meta_step_of_eight_devices_is_that_of_one():
    params, model_state = started()
    made = method("batch")

    def device(batch):
        batch = batch | {"step": np.int32(0)}
        return made.after_update(params, model_state, batch, None)["meta"]

    split = jax.tree.map(lambda x: x.reshape(8, 1, *x.shape[1:]), BATCH)
    every = jax.jit(jax.vmap(device, axis_name="batch"))(split)
    one, old = updater()(np.int32(0))["meta"], model_state["meta"]["params"]
    for number in (0, 7):
        found = jax.tree.map(lambda x, number=number: x[number], every)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5), found, one
        )
    changes = jax.tree.map(lambda a, b: np.abs(a - b).max(), one["params"], old)
    assert min(jax.tree.leaves(changes)) > 1e-3


@pytest.mark.slow
def test_a_run_that_is_cut_ends_as_the_whole_one(tmp_path, monkeypatch):
    """To the bit, meta network and its momentum included; cut between two meta steps."""
    source = runs.write_arrays(tmp_path / "tiny.npz")

    def config():
        made = configs.cifar_run("lmcl", "digits,tiny", count=2)
        made.batch_size, made.epochs, made.data.source = 16, 1, source
        made.data.images_per_class, made.evaluation.batch_size = 4, 15
        made.optimizer.warm_up_epochs, made.optimizer.learning_rate = 0, 0.02
        made.lmcl.meta_interval, made.lmcl.meta_steps = 2, 1
        return made

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    stages.train(config(), whole)
    with monkeypatch.context() as patch:
        patch.setattr(Preemption, "requested", lambda self, step: step == 3)
        with pytest.raises(Preempted):
            stages.train(config(), cut)
    stages.train(config(), cut)
    assert kill_resume.differences(whole, cut) == ["metrics.jsonl"]  # means of the second part
    (row,) = metrics.read(whole / "metrics.jsonl")
    assert {"network_1/ensemble/top1", "network_0/branch1/top1", "ensemble/top1"} <= set(row)


@pytest.mark.slow
def test_a_run_learns(tmp_path):
    """`configs/lmcl.py:digits`, but for its network, data and length, on two devices."""
    source = runs.write_arrays(tmp_path / "tiny.npz")
    changes = {"epochs": 3, "optimizer__learning_rate": 0.02, "optimizer__warm_up_epochs": 0}
    changes |= {"data__images_per_class": 4, "lmcl__meta_steps": 1}
    config = f"--config={runs.ROOT}/configs/lmcl.py:digits,tiny"
    flags = [config, *runs.settings(source, **changes)[1:]]
    runs.finish(runs.start(*flags, f"--workdir={tmp_path / 'run'}", devices=2))
    rows = metrics.read(tmp_path / "run" / "metrics.jsonl")
    assert rows[-1]["train/cross_entropy"] < rows[0]["train/cross_entropy"]
    assert rows[-1]["train/layer_weight"] != rows[0]["train/layer_weight"]
    for name in ("network_0/ensemble", "network_1/ensemble"):
        assert rows[-1][f"train/{name}/accuracy"] > rows[0][f"train/{name}/accuracy"]
        assert f"{name}/top1" in rows[-1]
