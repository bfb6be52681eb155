"""PS-KD: what a network remembers, what that makes of the labels, devices and interruptions."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from experiments import kill_resume
from kdjax import config as configs
from kdjax import losses, methods, models
from kdjax.errors import UserError
from kdjax.methods import base
from kdjax.methods.baselines.self_distillation import ps_kd as make
from kdjax.methods.baselines.self_distillation.ps_kd import recall, remember
from kdjax.methods.registry import Clock
from kdjax.training import stages
from kdjax.training.preemption import Preempted, Preemption
from tests import golden
from tests import tiny_runs as runs
from tests.models import helpers
from tests.tiny_runs import networks  # noqa: F401

CLOCK = Clock(images=6, steps_per_epoch=2, epochs=4)
LABELS = np.array([0, 1, 2, 3])
# Compiling is most of what these tests do.


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", golden.loss_names("selfkd_pskd_"))
def test_official_numbers(name, dtype):
    hyper, arrays = golden.loss(name)
    index, labels = arrays["in_indices"], arrays["in_targets"]
    alpha = hyper["alpha_T"] * (hyper["epoch"] + 1) / hyper["epochs"]

    def total(logits, bank):
        past = recall(bank, index, labels, hyper["epoch"])
        after = remember(bank, index, logits)
        return losses.ps_kd(logits, labels, past, alpha=alpha).mean(), after

    with jax.enable_x64(dtype is np.float64):
        inputs = arrays["in_logits"].astype(dtype), arrays["in_bank"].astype(dtype)
        run = jax.jit(jax.value_and_grad(total, has_aux=True))
        (loss, after), gradient = run(*inputs)
    for actual, name in ((loss, "out_loss"), (after, "out_bank"), (gradient, "grad_logits")):
        golden.compare(actual, arrays[name], dtype)


def cohort(count: int = 2, **fields) -> models.Cohort:
    network = helpers.tiny(blocks=(1,), widths=(4,), **fields)
    return models.Cohort((network,) * count)


def ps_kd(count: int = 2, axis_name=None) -> methods.Method:
    return make(cohort(count, axis_name=axis_name), alpha=0.8, clock=CLOCK, axis_name=axis_name)


def batch(step: int) -> dict:
    """Images 0, 1, 5 and 4."""
    index = np.array([0, 1, 5, 4])
    return {"image": helpers.IMAGES, "label": LABELS, "index": index, "step": np.int32(step)}


@functools.cache
def state(count: int = 2) -> tuple[dict, dict]:
    """Of networks that remember something of all images."""
    params, model_state = helpers.random_variables(methods.cross_entropy(cohort(count)))
    random = np.random.default_rng(0)
    past = {
        f"network_{i}": random.dirichlet(np.ones(5), 6).astype(np.float32) for i in range(count)
    }
    return params, model_state | {"memory": past}


@functools.cache
def step(count: int = 2):
    return jax.jit(ps_kd(count).loss)


@functools.cache
def probabilities() -> list[np.ndarray]:
    """Of both networks, for the batch."""
    params, model_state = state()
    run = jax.jit(functools.partial(base.train_outputs, cohort()))
    found, _ = run(params, {"batch_stats": model_state["batch_stats"]}, helpers.IMAGES)
    return [np.asarray(jax.nn.softmax(each.logits)) for each in found]


def soft_cross_entropy(alpha, pasts) -> float:
    """Summed over both networks, by its definition."""
    total = 0.0
    for each, past in zip(probabilities(), pasts, strict=True):
        targets = (1 - alpha) * np.eye(5)[LABELS] + alpha * past
        total -= np.mean(np.sum(targets * np.log(each), axis=-1))
    return total


def test_the_memory_begins_with_nothing(monkeypatch):
    # Compiling JAX's random numbers takes seconds.
    monkeypatch.setattr(base, "init_cohort", lambda *arguments: ({}, {"batch_stats": {}}))
    params, model_state = ps_kd().init(None, None)
    assert params == {} and set(model_state) == {"batch_stats", "memory"}
    for i in range(2):
        np.testing.assert_array_equal(model_state["memory"][f"network_{i}"], np.zeros((6, 5)))


def test_in_the_first_epoch_labels_are_hard_and_predictions_are_remembered():
    loss, (after, metrics) = step()(*state(), batch(1), None)
    np.testing.assert_allclose(loss, soft_cross_entropy(0.2, [np.eye(5)[LABELS]] * 2), rtol=1e-4)
    np.testing.assert_allclose(metrics["cross_entropy"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["alpha"], 0.2, rtol=1e-6)
    past = state()[1]["memory"]
    for name, expected in zip(past, probabilities(), strict=True):
        found = after["memory"][name]
        np.testing.assert_allclose(found[np.array([0, 1, 5, 4])], expected, rtol=1e-4)
        np.testing.assert_array_equal(found[np.array([2, 3])], past[name][[2, 3]])


def test_later_labels_are_softened_by_the_network_s_own_past():
    params, model_state = state()
    past = {name: each.copy() for name, each in model_state["memory"].items()}
    past["network_1"][5] = 0  # this network was never shown image 5
    pasts = [each[[0, 1, 5, 4]] for each in past.values()]
    pasts[1][2] = np.eye(5)[LABELS[2]]
    loss, (_, metrics) = step()(params, model_state | {"memory": past}, batch(5), None)
    np.testing.assert_allclose(metrics["alpha"], 0.6, rtol=1e-6)  # the third epoch of four
    np.testing.assert_allclose(loss, soft_cross_entropy(0.6, pasts), rtol=1e-4)
    np.testing.assert_allclose(metrics["soft_cross_entropy"], loss, rtol=1e-6)


def test_every_device_remembers_the_images_of_all():
    expected, (after, _) = step(1)(*state(1), batch(3), None)
    axes = {"image": 0, "label": 0, "index": 0, "step": None}

    @jax.jit
    @functools.partial(jax.vmap, axis_name="batch", in_axes=(axes,))
    def on_device(batch):
        loss, (after, _) = ps_kd(1, axis_name="batch").loss(*state(1), batch, None)
        return jax.lax.pmean(loss, "batch"), after

    sliced = {
        name: each if axes[name] is None else each.reshape(2, 2, *each.shape[1:])
        for name, each in batch(3).items()
    }
    loss, found = on_device(sliced)
    np.testing.assert_allclose(loss[0], expected, rtol=1e-5)
    memories = found["memory"]["network_0"]
    np.testing.assert_array_equal(memories[0], memories[1])
    helpers.assert_equal(memories[0], after["memory"]["network_0"])


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_alpha_is_a_share(alpha):
    with pytest.raises(UserError, match=r"config\.ps_kd\.alpha=-?\d\.1: must be at least 0"):
        make(cohort(), alpha=alpha, clock=CLOCK)


@pytest.mark.slow
def test_interrupted_run_ends_as_the_uninterrupted_one(tmp_path, monkeypatch):
    """In the middle of its second epoch, which learns from what the first one remembered."""
    config = configs.cifar_run("ps_kd", "digits,tiny", count=2)
    config.batch_size, config.epochs = 16, 2
    config.data.source = runs.write_arrays(tmp_path / "tiny.npz")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    stages.train(config, whole)
    with monkeypatch.context() as patch:
        patch.setattr(Preemption, "requested", lambda self, step: step == 8)
        with pytest.raises(Preempted):
            stages.train(config, cut)
    assert kill_resume.latest(cut / "checkpoints") == 8
    stages.train(config, cut)
    assert kill_resume.differences(whole, cut) == ["metrics.jsonl"]
