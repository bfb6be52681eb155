"""Every method of `configs/self_distill.py` from its config to a step, and a run of one of them."""

from __future__ import annotations

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import methods
from kdjax.runs import metrics
from tests import tiny_runs as runs

METHODS = [name for name, entry in methods.METHODS.items() if entry.family == "self_distill"]
ANCHORS, CLASSES = 4, 5
HEADS = {"byot": ("branch1", "branch2"), "dks": ("branch1", "branch2"), "frskd": ("pyramid",)}
# Compiled by default; the others with `-m slow`.
QUICK = ("label_smoothing",)
COMPILED = [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in sorted(METHODS)
]


def config_of(name: str):
    """The config of a method on digits, with ResNet-8."""
    file = runs.ROOT / "configs" / "self_distill.py"
    spec = importlib.util.spec_from_file_location("config_self_distill", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(f"{name},digits,resnet8")
    config.batch_size = ANCHORS
    return config


def method(name: str) -> methods.Method:
    labels = np.arange(10 * ANCHORS) % CLASSES
    return methods.create(config_of(name), num_classes=CLASSES, axis_name=None, train_labels=labels)


def batch(name: str) -> dict[str, np.ndarray]:
    """Noise, in as many views and with as many partners as the config says."""
    data = config_of(name).data
    rows = ANCHORS * (1 + data.partners)
    views = np.random.default_rng(0).normal(size=(rows, data.views, 8, 8, 3)).astype(np.float32)
    labels = np.repeat(np.arange(ANCHORS) % CLASSES, 1 + data.partners)
    found = {"image": views[:, 0], "label": labels.astype(np.int32)}
    found |= {"index": np.arange(rows, dtype=np.int32), "step": np.int32(25)}
    return found | ({"views": views} if data.views > 1 else {})


def step(name: str, key, arrays):
    """From nothing to predictions: `loss, metrics, gradients, predictions`."""
    made = method(name)
    params, model_state = made.init(key, jnp.zeros((2, 8, 8, 3)))
    run = jax.value_and_grad(made.loss, has_aux=True)
    (loss, (updated, values)), gradients = run(params, model_state, arrays, key)
    assert jax.tree.structure(updated) == jax.tree.structure(model_state)
    predictions = made.predict(params, updated, arrays["image"])
    return loss, values, gradients, predictions


@pytest.mark.parametrize("name", sorted(METHODS))
def test_shapes_of_a_step(name):
    arrays = batch(name)
    loss, values, _, predictions = jax.eval_shape(
        functools.partial(step, name), jax.random.key(0), arrays
    )
    assert (loss.shape, loss.dtype) == ((), jnp.float32)
    assert "network_0/accuracy" in values
    assert {each.shape for each in values.values()} == {()}
    rows = len(arrays["image"])
    names = ["network_0", *(f"network_0/{head}" for head in HEADS.get(name, ()))]
    assert {key: each.shape for key, each in predictions.items()} == dict.fromkeys(
        names, (rows, CLASSES)
    )


@pytest.mark.parametrize("name", sorted(METHODS))
def test_inputs_have_labels_that_share_each_image(name):
    arrays = batch(name)
    images, labels, weights, notes = method(name).inputs(arrays, jax.random.key(0))
    assert images.shape[1:] == arrays["image"].shape[1:]
    assert labels.shape == weights.shape
    assert labels.shape[0] == images.shape[0] >= ANCHORS
    assert len(notes) in (0, images.shape[0])
    assert np.isfinite(images).all()
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("name", COMPILED)
def test_step_is_finite(name):
    run = jax.jit(functools.partial(step, name))
    loss, values, gradients, predictions = run(jax.random.key(0), batch(name))
    assert loss > 0.1
    found = jax.tree.leaves((values, gradients, predictions))
    assert all(np.isfinite(leaf).all() for leaf in found)
    assert 0 <= values["network_0/accuracy"] <= 1
    learns = [np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients)]
    assert np.mean(learns) > 0.9


@pytest.mark.slow
def test_run_as_in_the_docstring(tmp_path):
    """`configs/self_distill.py:frskd,digits`, but for network, data and length; then on."""
    source = runs.write_arrays(tmp_path / "tiny.npz")
    config = f"--config={runs.ROOT}/configs/self_distill.py:frskd,digits,tiny"
    changes = {"epochs": 1, "data__image_size": 0}
    workdir = f"--workdir={tmp_path / 'run'}"
    runs.finish(runs.start(config, *runs.settings(source, **changes)[1:], workdir))
    (row,) = metrics.read(tmp_path / "run" / "metrics.jsonl")
    for name in ("network_0", "network_0/pyramid"):
        assert {f"{name}/top1", f"train/{name}/accuracy"} <= set(row)
    assert {f"train/{term}" for term in ("cross_entropy", "distillation", "attention")} <= set(row)
    assert row["mean/top1"] == row["network_0/top1"]
