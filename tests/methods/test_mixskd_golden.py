"""MixSKD in the form of the script for CIFAR: whole optimization steps of the official code."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import config as configs
from kdjax import losses, methods, models
from kdjax.interop import torch as interop
from kdjax.methods import CONSTANTS
from kdjax.methods.mixskd_discriminators import DISCRIMINATORS
from kdjax.training import optimizers
from tests import golden

pytestmark = pytest.mark.slow

STAGES = ("branch1", "branch2", "branch3", "backbone")
TERMS = {
    "loss_cls": "cross_entropy",
    "loss_mixcls": "mixed_cross_entropy",
    "loss_div": "distillation",
    "loss_fea": "feature",
    "loss_gan": "discrimination",
}


def network(dtype) -> models.SelfTaught:
    plain = models.create("mixskd_resnet18", num_classes=20, dtype=dtype)
    return models.self_taught(plain.clone(blocks=(1, 1, 1, 1)))


def read(record: dict, dtype) -> tuple[dict, dict[str, tuple[str, ...]]]:
    """Filled variables of the network, and where its official entries stand."""
    state = golden.state_dict(record["net"])
    variables, report = interop.import_state_dict(network(dtype), state)
    variables = jax.tree.map(lambda x: x.astype(dtype), variables)
    return variables, {entry: tuple(path.split("/")) for entry, _, path in report.rows}


def discriminators(record: dict, dtype) -> dict:
    """Filled parameters of all stages' discriminators."""
    kinds = {"weight": "linear_weight", "bias": "bias"}

    def fill(index, layer, leaf):
        name = f"classifier.{layer}.{leaf}"
        shapes = {name: shape for name, shape, _ in record["discriminators"]["state_dict"][index]}
        prefix = record["discriminators"]["fill_prefix"].replace("<i>", str(index))
        return golden.fill(prefix + name, shapes[name], kinds[leaf]).T.astype(dtype)

    return {
        name: {
            layer: {"kernel": fill(index, place, "weight"), "bias": fill(index, place, "bias")}
            for layer, place in (("hidden", 0), ("output", 2))
        }
        for index, name in enumerate(STAGES)
    }


@functools.cache
def compiled(temperature: float, dtype) -> tuple:
    """The method, its gradient function and `predict`, compiled once for both learning rates."""
    method = methods.mixskd(
        models.Cohort((network(dtype),)),
        alpha=0.4,  # what it draws is given instead
        temperature=temperature,
        mixed_labels=False,
        train_discriminators=False,
    )
    optimized = functools.partial(jax.jit, compiler_options=golden.OPTIMIZED)
    gradient = optimized(jax.value_and_grad(method.loss, has_aux=True))
    return method, gradient, optimized(method.predict)


def optimizer(record: dict, method: methods.Method) -> optax.GradientTransformation:
    config = configs.base()
    config.optimizer.schedule = "constant"
    config.optimizer.learning_rate = record["lr"]
    for name in ("momentum", "nesterov", "weight_decay"):
        config.optimizer[name] = record[name]
    return method.optimizer(optimizers.create(config, steps_per_epoch=1))


def run(record: dict, arrays: dict, dtype) -> dict[str, np.ndarray]:
    """All steps of a golden trajectory, as arrays with its names. A key is the mixture itself."""
    method, gradient, predict = compiled(record["kd_T"], dtype)
    tx = optimizer(record, method)

    @jax.jit
    def apply(grads, opt_state, params):
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    variables, places = read(record, dtype)
    constants = {DISCRIMINATORS: {"network_0": discriminators(record, dtype)}}
    params = {"cohort": {"network_0": variables["params"]}}
    model_state = {
        "batch_stats": {"network_0": variables["batch_stats"]},
        CONSTANTS: constants,
    }
    batch = {"image": arrays["in_x"].astype(dtype), "label": arrays["in_target"]}
    paths = [
        places[name][1:]
        for name, _, kind in record["net"]["state_dict"]
        if kind not in ("bn_mean", "bn_var", "bn_count")
    ]
    opt_state, history, first = tx.init(params), [], None
    for lam, order in zip(arrays["in_lam"], arrays["in_index"], strict=True):
        mixture = losses.Mixture(jnp.asarray(lam, dtype), order)
        (loss, (model_state, metrics)), grads = gradient(params, model_state, batch, mixture)
        history.append({"loss": loss} | {name: metrics[own] for name, own in TERMS.items()})
        first = norms(grads, paths) if first is None else first
        params, opt_state = apply(grads, opt_state, params)
    jax.tree.map(np.testing.assert_array_equal, model_state[CONSTANTS], constants)
    found = {name: np.array([each[name] for each in history]) for name in history[0]}
    statistics = model_state["batch_stats"]["network_0"]
    entries = [name for name, _, kind in record["net"]["state_dict"] if kind == "bn_var"]
    found |= {
        f"net_bn_{place}_{leaf}": at(statistics, places[entry.replace("_var", f"_{leaf}")][1:])
        for place, entry in (("first", entries[0]), ("last", entries[-1]))
        for leaf in ("mean", "var")
    }
    logits = predict(params, model_state, batch["image"])
    names = ["network_0/branch1", "network_0/branch2", "network_0/branch3", "network_0"]
    found |= {f"eval_logits{index}": logits[name] for index, name in enumerate(names)}
    return found | {"grad_norm_step0": first, "net_param_norm": norms(params, paths)}


def at(tree: dict, path: tuple[str, ...]) -> np.ndarray:
    return np.asarray(functools.reduce(lambda node, key: node[key], path, tree))


def norms(tree: dict, paths) -> np.ndarray:
    return np.array([np.linalg.norm(at(tree["cohort"]["network_0"], path)) for path in paths])


@pytest.fixture(autouse=True)
def given_mixtures(monkeypatch):
    monkeypatch.setattr(losses, "draw_mixture", lambda key, count, *, alpha: key)


@pytest.mark.parametrize("name", golden.trajectory_names("traj_mixskd_"))
def test_steps_in_float64(name):
    record, arrays = golden.trajectory(name)
    with jax.enable_x64(True):
        result = run(record, arrays, jnp.float64)
    compared = {key for key in result if f"{key}_f64" in arrays}
    assert {"loss", *TERMS, "eval_logits3", "grad_norm_step0", "net_param_norm"} <= compared
    for key in compared:
        golden.assert_close(result[key], arrays[f"{key}_f64"], 1e-10)


@pytest.mark.parametrize("name", golden.trajectory_names("traj_mixskd_resnet10_aux_lr0.001"))
def test_steps_in_float32(name):
    """The small learning rate, within some times the official code's own rounding error."""
    record, arrays = golden.trajectory(name)
    rounding = dict(record["torch_f32_vs_f64_rel"])
    result = run(record, arrays, jnp.float32)
    for key, value in result.items():
        if key in rounding:
            golden.assert_close(value, arrays[f"{key}_f64"], 30 * max(rounding[key], 1e-6))
        else:  # running statistics, stored in float32: both sides' rounding is in the difference
            golden.assert_close(value, arrays[key], 5e-5)
    np.testing.assert_allclose(result["loss"], arrays["loss_f64"], rtol=1e-3)
