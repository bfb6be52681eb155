"""A tiny student, its teachers, and compiled steps of every baseline of distillation."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import numpy as np

from kdjax import config as configs
from kdjax import methods, models
from kdjax.methods.baselines.distillation import BASELINES, by_class, distill
from tests.models import helpers

KEY = jax.random.key(0)
BATCH = {
    "image": helpers.IMAGES,
    "label": np.array([0, 1, 2, 3]),
    "index": np.array([5, 2, 7, 0]),
}
LABELS = np.array([3, 1, 1, 2, 0, 0, 4, 2])  # of the training split
STEPS_PER_EPOCH = 3
SAME_WIDTH = ("fsp", "kdsvd")
PHASED = ("ab", "fsp", "ft")
LATER = 100 * STEPS_PER_EPOCH  # a step after all phases and warm-ups


def student() -> nn.Module:
    return helpers.tiny()


def teacher(name: str) -> nn.Module:
    """A wide network; a deeper student where widths must agree."""
    return helpers.tiny(blocks=(2, 1, 1)) if name in SAME_WIDTH else helpers.tiny("wrn")


def settings(name: str, **changes) -> tuple[dict, dict]:
    """The weights of the config's section, and the fields of the baseline."""
    fields = dict(configs.base()[name]) | changes
    del fields["teacher_weight"], fields["teacher_temperature"]
    if "init_learning_rate" in fields:
        fields["learning_rate"] = 0.05
    return {key: fields.pop(key) for key in ("weight", "label_weight")}, fields


def method(name: str, *, weight=None, label_weight=None, **changes) -> methods.Method:
    """The baseline as the config has it; its weights may also be traced."""
    weights, fields = settings(name, **changes)
    return distill(
        models.Cohort((student(),)),
        teacher(name),
        teacher_variables(name),
        BASELINES[name](**fields),
        weight=weights["weight"] if weight is None else weight,
        label_weight=weights["label_weight"] if label_weight is None else label_weight,
        steps_per_epoch=STEPS_PER_EPOCH,
        constants={"others": by_class(LABELS)} if name == "crd" else None,
    )


@functools.cache
def teacher_variables(name: str) -> dict:
    return helpers.random_variables(teacher(name))


class Variables:
    """A method's `init` without its constants, which are not to be filled at random."""

    def __init__(self, method: methods.Method):
        self.method = method

    def init(self, key, images):
        params, model_state = self.method.init(key, images)
        kept = {name: each for name, each in model_state.items() if name != methods.CONSTANTS}
        return params, kept


@functools.cache
def state(name: str) -> tuple[dict, dict]:
    params, model_state = helpers.random_variables(Variables(method(name)))
    constants = {"teacher": teacher_variables(name)}
    if name == "crd":
        constants["others"] = by_class(LABELS)
        model_state["adapters"]["memory"]["normalizers"] = np.zeros(2, np.float32)
    return params, model_state | {methods.CONSTANTS: constants}


@functools.cache
def compiled(name: str):
    """A step of a baseline, compiled once for all weights and steps."""

    def run(params, model_state, weight, label_weight, step):
        made = method(name, weight=weight, label_weight=label_weight)
        constants = model_state[methods.CONSTANTS]

        def loss(params, weights):
            own = model_state | {methods.CONSTANTS: constants | {"teacher": weights}}
            return made.loss(params, own, BATCH | {"step": step}, KEY)

        gradient = jax.value_and_grad(loss, (0, 1), has_aux=True)
        return gradient(params, constants["teacher"])

    return jax.jit(run)


def step(name: str, number: int = LATER, **changes):
    """`(loss, (model state, metrics)), gradients` of parameters and of the teacher's variables."""
    weights = settings(name)[0] | changes
    return compiled(name)(*state(name), weights["weight"], weights["label_weight"], number)


def size(tree) -> float:
    return max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(tree))
