"""The MCL method: whole optimization steps against the official code, and what it refuses."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import config as configs
from kdjax import losses, methods, models
from kdjax.errors import UserError
from kdjax.interop import torch as interop
from kdjax.methods.mcl import ProjectionHead, distill_logits
from kdjax.training import optimizers
from tests import golden
from tests.models import helpers

TERMS = {
    "loss": "loss",
    "loss_cls": "cross_entropy",
    "loss_vcl": "vcl",
    "loss_soft_vcl": "soft_vcl",
    "loss_icl": "icl",
    "loss_soft_icl": "soft_icl",
    "loss_logit_kd": "logit_distillation",
}


def head_path(name: str) -> tuple[str, ...]:
    """Where an entry of the official projection heads stands in the method's parameters."""
    index, layer, leaf = re.fullmatch(r"(\d)\.proj_head\.(\d)\.(\w+)", name).groups()
    leaf = {"weight": "kernel", "bias": "bias"}[leaf]
    return ("heads", f"head_{index}", {"0": "hidden", "2": "output"}[layer], leaf)


def at(tree: dict, path: tuple[str, ...]) -> np.ndarray:
    return functools.reduce(lambda node, key: node[key], path, tree)


def networks(record: dict) -> tuple[dict, dict[str, tuple[str, ...]]]:
    """The filled variables of a record's networks, and where each official entry stands in them."""
    name, count = re.match(r"MCL (\w+) x(\d)", record["title"]).groups()
    # The official code shares the stem and the first stage from more than two networks on.
    module = models.create(name, num_classes=100)
    cohort = models.Cohort((module,) * int(count), shared_stages=int(int(count) > 2))
    variables, report = interop.import_state_dict(cohort, golden.state_dict(record["net"]))
    return variables, {entry: tuple(path.split("/")) for entry, _, path in report.rows}


def parameter_paths(record: dict) -> list[tuple[str, ...]]:
    """Places of all parameters in the official order: networks, then heads."""
    places = networks(record)[1]
    network = [
        ("cohort", *places[name][1:])
        for name, _, kind in record["net"]["state_dict"]
        if kind not in ("bn_mean", "bn_var", "bn_count")
    ]
    return network + [head_path(name) for name, *_ in record["heads"]["state_dict"]]


def filled(record: dict, dtype) -> tuple[dict, dict]:
    """Parameters and model state before the first step."""
    variables = jax.tree.map(lambda x: x.astype(dtype), networks(record)[0])
    heads = {}
    for name, shape, kind in record["heads"]["state_dict"]:
        value = golden.fill(record["heads"]["fill_prefix"] + name, shape, kind).T.astype(dtype)
        _, head, layer, leaf = head_path(name)
        heads.setdefault(head, {}).setdefault(layer, {})[leaf] = value
    params = {"cohort": variables["params"], "heads": heads}
    return params, {"batch_stats": variables["batch_stats"]}


def settings(record: dict) -> dict:
    """The keyword arguments of `methods.mcl`."""
    return {
        "alpha": record["alpha"],
        "beta": record["beta"],
        "gamma": record["gamma"],
        "lam": record["lam"],
        "temperature": record["tau"],
        "kd_temperature": record["kd_T"],
        "projection_features": record["feat_dim"],
        "logit_distillation": "cifar" if record["logit_distill"] else "none",
    }


@functools.cache
def compiled(network: str, count: int, dtype, **options) -> tuple:
    """The method's (gradient function, predict), compiled once for all learning rates."""
    module = models.create(network, num_classes=100, dtype=dtype)
    cohort = models.Cohort((module,) * count, shared_stages=int(count > 2))
    method = methods.mcl(cohort, **options)
    optimized = functools.partial(jax.jit, compiler_options=golden.OPTIMIZED)
    gradient = optimized(jax.value_and_grad(method.loss, has_aux=True))
    return gradient, optimized(method.predict)


def optimizer(record: dict) -> optax.GradientTransformation:
    config = configs.base()
    config.optimizer.schedule = "constant"
    config.optimizer.learning_rate = record["lr"]
    for name in ("momentum", "nesterov", "weight_decay"):
        config.optimizer[name] = record[name]
    return optimizers.create(config, steps_per_epoch=1)


class Steps(NamedTuple):
    """What all steps of a golden trajectory leave behind."""

    history: list[dict]
    first_gradients: dict
    params: dict
    model_state: dict
    predictions: dict


def run(record: dict, arrays: dict, dtype) -> Steps:
    network, count = re.match(r"MCL (\w+) x(\d)", record["title"]).groups()
    gradient, predict = compiled(network, int(count), dtype, **settings(record))
    tx = optimizer(record)

    @jax.jit
    def apply(grads, opt_state, params):
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params, model_state = filled(record, dtype)
    images = arrays["in_x"].astype(dtype)
    batch = {"image": images, "label": arrays["in_target"], "index": np.arange(len(images))}
    opt_state, history, first_gradients = tx.init(params), [], None
    for _ in range(record["steps"]):
        (loss, (model_state, metrics)), grads = gradient(
            params, model_state, batch, jax.random.key(0)
        )
        history.append(metrics | {"loss": loss})
        first_gradients = grads if first_gradients is None else first_gradients
        params, opt_state = apply(grads, opt_state, params)
    predictions = predict(params, model_state, images)
    return Steps(history, first_gradients, params, model_state, predictions)


def norms(tree: dict, paths) -> np.ndarray:
    return np.array([np.linalg.norm(np.asarray(at(tree, path)).ravel()) for path in paths])


def norm_entries(record: dict) -> dict[str, str]:
    """The official names of the first and of the last BatchNorm of all networks."""
    names = [name for name, _, kind in record["net"]["state_dict"] if kind == "bn_var"]
    return {"first": names[0], "last": names[-1]}


def cases(suffix: str = "") -> list:
    """Golden trajectories whose names end so; all but the smallest networks are slow."""
    found = []
    for name in golden.trajectory_names("traj_mcl_"):
        if not isinstance(name, str):
            found.append(name)  # nothing there: skipped
        elif name.endswith(suffix):
            slow = () if "resnet20" in name else pytest.mark.slow
            found.append(pytest.param(name, marks=slow))
    return found


def assert_trajectory(result: Steps, record, arrays, tolerance) -> None:
    """Compares with the official float64 run; `tolerance(array name)` is relative."""
    terms = {name: ours for name, ours in TERMS.items() if ours in result.history[0]}
    actual = {name: [row[ours] for row in result.history] for name, ours in terms.items()}
    paths = parameter_paths(record)
    networks = [path for path in paths if path[0] == "cohort"]
    heads = [path for path in paths if path[0] == "heads"]
    actual |= {
        "grad_norm_step0": norms(result.first_gradients, paths),
        "net_param_norm": norms(result.params, networks),
        "heads_param_norm": norms(result.params, heads),
    }
    for name, logits in result.predictions.items():
        if name != "ensemble":
            actual[name.replace("network_", "eval_logits")] = logits
    for name, value in actual.items():
        golden.assert_close(value, arrays[f"{name}_f64"], tolerance(name))


@pytest.mark.parametrize("name", cases())
def test_steps_in_float64(name):
    record, arrays = golden.trajectory(name)
    with jax.enable_x64(True):
        assert_trajectory(run(record, arrays, jnp.float64), record, arrays, lambda name: 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", cases("_lr0.001"))
def test_steps_in_float32(name):
    """The small learning rate, within twice the official code's own rounding error.

    Where an activation is rounded to the other side of a ReLU than in float64 (the first
    gradients differ by more than rounding then, as they do for 32 layers), ten times more.
    """
    record, arrays = golden.trajectory(name)
    result = run(record, arrays, jnp.float32)
    rounding = dict(record["torch_f32_vs_f64_rel"])
    gradients = norms(result.first_gradients, parameter_paths(record))
    expected = arrays["grad_norm_step0_f64"]
    difference = np.abs(gradients - expected).max() / expected.max()
    assert difference < 5e-4
    rounding["grad_norm_step0"] = max(difference, 1e-6)
    times = 2 if difference < 1e-6 else 20
    assert_trajectory(result, record, arrays, lambda name: times * max(rounding[name], 1e-6))
    # Running statistics are stored for the first and the last BatchNorm, in float32.
    places = networks(record)[1]
    for place, entry in norm_entries(record).items():
        for official in ("mean", "var"):
            value = at(result.model_state, places[entry.replace("_var", f"_{official}")])
            golden.assert_close(value, arrays[f"net_bn_{place}_{official}"], 1e-3)


def tiny_method(**options) -> methods.Method:
    cohort = models.Cohort((helpers.tiny(), helpers.tiny()))
    return methods.mcl(cohort, **dict(configs.base().mcl) | {"projection_features": 6} | options)


BATCH = {"image": helpers.IMAGES, "label": np.array([0, 1, 0, 1]), "index": np.arange(4)}


@functools.cache
def tiny_state() -> tuple[dict, dict]:
    """Parameters and model state of `tiny_method`."""
    return helpers.random_variables(tiny_method())


@functools.cache
def tiny_metrics(**options) -> dict[str, float]:
    loss, (_, metrics) = jax.jit(tiny_method(**options).loss)(*tiny_state(), BATCH, None)
    return {name: float(value) for name, value in (metrics | {"loss": loss}).items()}


@pytest.mark.parametrize("form", ["none", "cifar"])
def test_the_loss_is_the_weighted_sum_of_its_terms(form):
    weights = {"alpha": 0.2, "beta": 0.3, "gamma": 0.5, "lam": 0.7}
    values = tiny_metrics(**weights, logit_distillation=form)
    assert ("logit_distillation" in values) == (form != "none")
    expected = values["cross_entropy"] + values.get("logit_distillation", 0.0)
    expected += 0.2 * values["vcl"] + 0.3 * values["icl"]
    expected += 0.5 * values["soft_vcl"] + 0.7 * values["soft_icl"]
    np.testing.assert_allclose(values["loss"], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("form", "count", "students"),
    [("cifar", 2, [0, 1]), ("cifar", 3, [2]), ("imagenet", 2, [1]), ("imagenet", 3, [2])],
)
def test_the_students_of_logit_distillation(form, count, students):
    logits = list(np.random.default_rng(0).normal(size=(count, 4, 5)).astype(np.float32))
    actual = distill_logits(logits, form, 3.0)
    mean = sum(logits) / count
    expected = sum(losses.kd(logits[m], mean, temperature=3.0) for m in students)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_heads_are_not_used_for_prediction():
    params, model_state = tiny_state()
    predict = jax.jit(tiny_method().predict)
    without = predict({"cohort": params["cohort"]}, model_state, helpers.IMAGES)
    jax.tree.map(
        np.testing.assert_array_equal, without, predict(params, model_state, helpers.IMAGES)
    )


def test_projections_are_unit_vectors_and_a_zero_output_has_a_finite_gradient():
    head = ProjectionHead(3)
    embedding = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    params = helpers.random_variables(head, embedding)
    np.testing.assert_allclose(jnp.linalg.norm(head.apply(params, embedding), axis=-1), 1.0, 1e-6)
    zeros = jax.tree.map(np.zeros_like, params)
    gradients = jax.grad(lambda params: head.apply(params, embedding).sum())(zeros)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"logit_distillation": "mean"}, "logit_distillation='mean' is unknown; use 'none'"),
        ({"projection_features": 0}, "projection_features=0: must be at least 1"),
    ],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        tiny_method(**options)
