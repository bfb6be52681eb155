"""HSAKD's student: whole optimization steps against the official code."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import config as configs
from kdjax import methods, models
from kdjax.data import transformations
from kdjax.interop import torch as interop
from kdjax.methods import CONSTANTS
from kdjax.training import optimizers
from tests import golden


def read(record: dict, network: str, dtype) -> tuple[dict, dict[str, tuple[str, ...]]]:
    """Filled variables of a record's 'teacher' or 'student', and where official entries stand."""
    name = {"teacher": "resnet20_aux", "student": "resnet8_aux"}[network]
    module = models.create(name, num_classes=100)
    variables, report = interop.import_state_dict(module, golden.state_dict(record[network]))
    variables = jax.tree.map(lambda x: x.astype(dtype), variables)
    return variables, {entry: tuple(path.split("/")) for entry, _, path in report.rows}


@functools.cache
def compiled(temperature: float, dtype) -> tuple:
    """The student's (gradient function, predict), compiled once for all learning rates."""
    student = models.create("resnet8_aux", num_classes=100, dtype=dtype)
    teacher = models.create("resnet20_aux", num_classes=100, dtype=dtype)
    method = methods.hssakd_student(
        models.Cohort((student,)),
        teacher,
        {},  # given in the state
        transformations=transformations.create("rotations"),
        temperature=temperature,
    )
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


def run(record: dict, arrays: dict, dtype) -> dict[str, np.ndarray]:
    """All steps of a golden trajectory, as arrays with its names."""
    gradient, predict = compiled(record["kd_T"], dtype)
    tx = optimizer(record)

    @jax.jit
    def apply(grads, opt_state, params):
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    student, places = read(record, "student", dtype)
    teacher, _ = read(record, "teacher", dtype)
    params = {"cohort": {"network_0": student["params"]}}
    model_state = {
        "batch_stats": {"network_0": student["batch_stats"]},
        CONSTANTS: {"teacher": teacher},
    }
    batch = {"image": arrays["in_x"].astype(dtype), "label": arrays["in_target"]}
    paths = [
        places[name][1:]
        for name, _, kind in record["student"]["state_dict"]
        if kind not in ("bn_mean", "bn_var", "bn_count")
    ]
    opt_state, history, first = tx.init(params), [], None
    for _ in range(record["steps"]):
        (loss, (model_state, metrics)), grads = gradient(params, model_state, batch, None)
        history.append((loss, metrics["cross_entropy"], metrics["kl"] + metrics["joint_kl"]))
        first = norms(grads, paths) if first is None else first
        params, opt_state = apply(grads, opt_state, params)
    jax.tree.map(np.testing.assert_array_equal, model_state[CONSTANTS]["teacher"], teacher)
    loss, cross_entropy, divergence = np.array(history).T
    statistics = model_state["batch_stats"]["network_0"]
    entries = [name for name, _, kind in record["student"]["state_dict"] if kind == "bn_var"]
    found = {
        f"student_bn_{place}_{leaf}": at(statistics, places[entry.replace("_var", f"_{leaf}")][1:])
        for place, entry in (("first", entries[0]), ("last", entries[-1]))
        for leaf in ("mean", "var")
    }
    return found | {
        "loss": loss,
        "loss_cls": cross_entropy,
        "loss_div": divergence,
        "grad_norm_step0": first,
        "student_param_norm": norms(params, paths),
        "eval_logits": predict(params, model_state, batch["image"])["network_0"],
    }


def at(tree: dict, path: tuple[str, ...]) -> np.ndarray:
    return np.asarray(functools.reduce(lambda node, key: node[key], path, tree))


def norms(tree: dict, paths) -> np.ndarray:
    return np.array([np.linalg.norm(at(tree["cohort"]["network_0"], path)) for path in paths])


@pytest.mark.parametrize("name", golden.trajectory_names("traj_hsakd_"))
def test_steps_in_float64(name):
    record, arrays = golden.trajectory(name)
    with jax.enable_x64(True):
        result = run(record, arrays, jnp.float64)
    for key, value in result.items():
        if f"{key}_f64" in arrays:
            golden.assert_close(value, arrays[f"{key}_f64"], 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", golden.trajectory_names("traj_hsakd_resnet8_aux_lr0.001"))
def test_steps_in_float32(name):
    """The small learning rate, within some times the official code's own rounding error."""
    record, arrays = golden.trajectory(name)
    rounding = dict(record["torch_f32_vs_f64_rel"])
    for key, value in run(record, arrays, jnp.float32).items():
        if key in rounding:
            golden.assert_close(value, arrays[f"{key}_f64"], 30 * max(rounding[key], 1e-6))
        else:  # running statistics, stored in float32
            golden.assert_close(value, arrays[key], 1e-5)
