"""Whole optimization steps of soft filter pruning against the official code."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import losses, models, pruning
from kdjax.interop import torch as interop
from tests import golden
from tests.pruning.trees import kernels, zeros

BUFFERS = ("bn_mean", "bn_var", "bn_count")


def at(tree: dict, path: str) -> np.ndarray:
    return np.asarray(functools.reduce(lambda node, key: node[key], path.split("/"), tree))


@functools.cache
def module(dtype):
    return models.create("sfp_resnet20", num_classes=10, dtype=dtype)


@functools.cache
def compiled(dtype) -> tuple:
    """(gradient function, evaluation), compiled once for all learning rates."""

    def loss(params, batch_stats, images, labels):
        outputs, updates = module(dtype).apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        return losses.cross_entropy(outputs.logits, labels).mean(), updates["batch_stats"]

    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
    return gradient, jax.jit(
        lambda variables, images: module(dtype).apply(variables, images).logits
    )


def optimizer(record: dict) -> tuple[optax.GradientTransformation, ...]:
    """The official SGD, and pruning after it."""
    sgd = optax.chain(
        optax.add_decayed_weights(record["weight_decay"]),
        optax.sgd(record["lr"], momentum=record["momentum"], nesterov=record["nesterov"]),
    )
    rate = round(1 - record["rate"], 12)
    settings = {"epochs": record["epochs"], "every": record["steps_per_epoch"]}
    return sgd, pruning.sfp(pruning.official, rate, counting="float", **settings)


def run(record: dict, arrays: dict, dtype) -> dict[str, np.ndarray]:
    """All steps of the golden trajectory, as arrays with its names."""
    gradient, evaluate = compiled(dtype)
    sgd, prune = optimizer(record)
    variables, report = interop.import_state_dict(module(dtype), golden.state_dict(record["net"]))
    places = {entry: path for entry, _, path in report.rows}
    entries = [(name, kind) for name, _, kind in record["net"]["state_dict"]]
    order = [places[name] for name, kind in entries if kind == "conv_weight"]
    layers = [path.removeprefix("params/").removesuffix("/kernel") for path in order]
    variables = jax.tree.map(lambda x: jnp.asarray(x, dtype), variables)
    params, batch_stats = pruning.initial(prune, variables["params"]), variables["batch_stats"]

    def all_masks(params):
        gone = {name: zeros(kernel) for name, kernel in kernels(params).items()}
        return ~np.concatenate([gone[layer] for layer in layers])

    @jax.jit
    def apply(grads, states, params):
        steps, inner = sgd.update(grads, states[0], params)
        updates, state = prune.update(steps, states[1], params)
        unpruned = optax.apply_updates(params, steps)
        return optax.apply_updates(params, updates), (inner, state), unpruned

    states = sgd.init(params), prune.init(params)
    history, masks, left = [], [all_masks(params)], []
    for step in range(record["epochs"] * record["steps_per_epoch"]):
        batch = step % record["steps_per_epoch"]
        images = jnp.asarray(arrays["in_x"][batch], dtype)
        (loss, batch_stats), grads = gradient(
            params, batch_stats, images, arrays["in_target"][batch]
        )
        history.append(loss)
        params, states, unpruned = apply(grads, states, params)
        if batch == record["steps_per_epoch"] - 1:
            left.append((~all_masks(unpruned)).sum())
            masks.append(all_masks(params))
            state = np.concatenate([states[1].masks[layer] for layer in layers])
            np.testing.assert_array_equal(state, masks[-1])
    variables = {"params": params, "batch_stats": batch_stats}
    norms = [
        np.linalg.norm(at(variables, places[name])) for name, kind in entries if kind not in BUFFERS
    ]
    return {
        "loss": np.array(history),
        "mask": np.array(masks),
        "pruned_before_mask": np.array(left),
        "net_param_norm": np.array(norms),
        "eval_logits": evaluate(variables, jnp.asarray(arrays["in_x"][0], dtype)),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", golden.trajectory_names("traj_sfp_resnet20"))
def test_steps_in_float64(name):
    record, arrays = golden.trajectory(name)
    with jax.enable_x64(True):
        result = run(record, arrays, jnp.float64)
    for key, value in result.items():
        if value.dtype.kind == "f":
            assert value.dtype == np.float64
            golden.assert_close(value, arrays[f"{key}_f64"], 1e-9)
        else:
            np.testing.assert_array_equal(value, arrays[f"{key}_f64"])
