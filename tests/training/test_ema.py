"""The moving average of weights: its values, on devices, in checkpoints and in files."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdjax
from kdjax import config as configs
from kdjax.errors import UserError
from kdjax.methods import MEMORY, Method
from kdjax.methods.averaged import EMA, Ema, averaged
from kdjax.parallel import AXIS
from kdjax.training import checks, stages
from kdjax.training import step as training
from kdjax.training.preemption import Preempted, Preemption
from tests import tiny_runs as runs
from tests.tiny_runs import networks  # noqa: F401


def regression():
    """Least squares; the 'statistics' are running means of the images."""

    def init(key, images):
        params = {"w": jax.random.normal(key, images.shape[1:])}
        return params, {"batch_stats": {"mean": jnp.zeros(())}}

    def loss(params, model_state, batch, key):
        error = (batch["image"] * params["w"]).sum((1, 2, 3)) - batch["label"]
        mean = 0.9 * model_state["batch_stats"]["mean"] + 0.1 * batch["image"].mean()
        return jnp.mean(error**2), ({"batch_stats": {"mean": mean}}, {})

    def predict(params, model_state, images):
        return {"network_0": images * params["w"] + model_state["batch_stats"]["mean"]}

    return Method(init, loss, predict)


@pytest.mark.parametrize("warm_up", [True, False])
def test_average_of_every_step_on_one_device_and_on_two(warm_up):
    decay, steps, images = 0.5, 4, np.random.default_rng(0).normal(size=(4, 8, 2, 2, 1))
    method, tx = averaged(regression(), Ema(decay, warm_up)), optax.sgd(0.05)
    batches = {
        "image": jnp.asarray(images, jnp.float32),
        "label": jnp.arange(32).reshape(4, 8) % 3,
        "index": jnp.zeros((4, 8), jnp.int32),
    }
    step = training.train_step(method, tx, lambda c, batch, *_: batch, 0)
    mapped = jax.jit(jax.vmap(step, in_axes=(None, None, 0), axis_name=AXIS))
    start = training.init_state(method, tx, jax.random.key(0), (2, 2, 1))
    for devices in (1, 2):
        state, keep_all = start, {"params": start.params, **start.model_state[EMA][MEMORY]}
        expected = jax.tree.map(np.asarray, keep_all)
        for t in range(steps):
            one = jax.tree.map(
                lambda x, t=t, d=devices: (
                    x[t : t + 1].reshape(1, d, -1, *x.shape[2:]).swapaxes(0, 1)
                ),
                batches,
            )
            both, _ = mapped(state, {}, one)
            for leaf in jax.tree.leaves(both):
                np.testing.assert_array_equal(leaf[0], leaf[-1])
            state = jax.tree.map(lambda x: x[0], both)
            keep = min(decay, (1 + t) / (10 + t)) if warm_up else decay
            now = {"params": state.params, "batch_stats": state.model_state["batch_stats"]}
            expected = jax.tree.map(lambda a, x, k=keep: k * a + (1 - k) * x, expected, now)
        average = state.model_state[EMA][MEMORY]
        jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-5), average, expected)
    predicted = method.predict(state.params, state.model_state, batches["image"][0])
    assert list(predicted) == ["network_0", "ema/network_0"]
    by_hand = batches["image"][0] * average["params"]["w"] + average["batch_stats"]["mean"]
    np.testing.assert_allclose(predicted["ema/network_0"], by_hand, rtol=1e-6)


def test_no_average_leaves_the_method_as_it_is():
    method = regression()
    assert averaged(method, Ema()) is method


def test_averages_of_pruned_networks_are_refused():
    config = configs.base()
    config.ema.decay, config.pruning.method = 0.9, "sfp"
    with pytest.raises(UserError, match=r"config.ema.decay and config.pruning.method exclude"):
        checks.check(config)


@pytest.mark.slow
def test_a_run_with_an_average_resumes_to_the_bit_and_exports_it(tmp_path, monkeypatch, call):
    source = runs.write_arrays(tmp_path / "tiny.npz")
    config = configs.cifar_run("dml", "digits,tiny", count=2)
    config.batch_size, config.epochs, config.data.source = 16, 2, source
    config.evaluation.batch_size, config.ema.decay = 16, 0.8
    config.evaluation.best = "ema/network_1/top1"
    whole, cut, plain = (tmp_path / name for name in ("whole", "cut", "plain"))
    metrics = stages.train(config, whole)
    assert "ema/network_0/top1" in metrics and "ema/ensemble/top1" in metrics
    with monkeypatch.context() as patch:
        patch.setattr(Preemption, "requested", lambda self, step: step == 8)
        with pytest.raises(Preempted):
            stages.train(config, cut)
    stages.train(config, cut)
    for ema in (False, True):
        loaded = [kdjax.networks.load(run, 1, "latest", ema=ema).variables for run in (whole, cut)]
        jax.tree.map(np.testing.assert_array_equal, *loaded)
    trained = kdjax.networks.load(whole, 1, "latest").variables["params"]
    mean = loaded[0]["params"]
    different = jax.tree.map(lambda a, b: np.abs(a - b).max(), trained, mean)
    assert min(jax.tree.leaves(different)) > 0
    config.ema.decay, config.evaluation.best = 0.0, "mean/top1"
    stages.train(config, plain)  # the average changes nothing in training
    jax.tree.map(
        np.testing.assert_array_equal,
        trained,
        kdjax.networks.load(plain, 1, "latest").variables["params"],
    )
    with pytest.raises(UserError, match="no moving average of its weights"):
        kdjax.networks.load(plain, ema=True)
    out = tmp_path / "ema.safetensors"
    flags = ["--job=export", f"--workdir={whole}", "--formats=torch", f"--torch_file={out}"]
    if pytest.importorskip("safetensors"):
        status, _, errors = call(*flags, "--ema", "--network_index=1", "--checkpoint=latest")
        assert status == 0, errors
        from safetensors.numpy import load_file

        arrays = load_file(out)
        np.testing.assert_array_equal(
            arrays["conv1.weight"], mean["stem_conv"]["kernel"].transpose(3, 2, 0, 1)
        )
