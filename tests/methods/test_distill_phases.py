"""Distillation that begins with a phase of its own: AB, FSP and FT."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax.methods.baselines.distillation.phases import two_phases
from tests.methods.distilled import (
    PHASED,
    STEPS_PER_EPOCH,
    method,
    size,
    state,
    step,
)

FIRST_STEPS = 30 * STEPS_PER_EPOCH


@pytest.mark.parametrize("name", PHASED)
def test_the_first_phase_has_its_own_loss_and_ends(name):
    (loss, (updated, metrics)), (gradients, _) = step(name, FIRST_STEPS - 1)
    assert loss == metrics["first_phase"]
    assert not size(gradients["cohort"]["network_0"]["classifier"])
    old = state(name)[1]["batch_stats"]
    moved = size(jax.tree.map(np.subtract, old, updated["batch_stats"])) > 0
    assert moved == (name != "ft")  # the student waits for the paraphraser
    if name == "ft":
        assert not size(gradients["cohort"])
        assert not size(gradients["adapters"]["translator"])
        assert size(gradients["adapters"]["paraphraser"]) > 0
    (loss, (_, metrics)), _ = step(name, FIRST_STEPS)
    assert loss != metrics["first_phase"]


def moving(name: str, number: int) -> set[str]:
    """Which modules the optimizer moves in a step, were all their gradients 1."""
    params, _ = state(name)
    tx = method(name).optimizer(optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1)))
    opt_state = tx.init(params)._replace(count=np.array(number, np.int32))
    updates, _ = tx.update(jax.tree.map(np.ones_like, params), opt_state, params)
    modules = updates["cohort"]["network_0"] | updates.get("adapters", {})
    return {module for module, leaves in modules.items() if size(leaves) > 0}


@pytest.mark.parametrize("name", PHASED)
def test_each_phase_trains_its_own_modules(name):
    params, _ = state(name)
    network, adapters = set(params["cohort"]["network_0"]), set(params.get("adapters", ()))
    features = {module for module in network if module.startswith(("stem", "stage"))}
    assert network - features == {"classifier"}
    first, second = moving(name, FIRST_STEPS - 1), moving(name, FIRST_STEPS)
    expected = {
        "ab": (features | adapters, network),
        "fsp": (features, network),
        "ft": ({"paraphraser", "restorer"}, network | {"translator"}),
    }
    assert (first, second) == expected[name]


def test_two_phases_are_two_optimizers_one_after_the_other():
    schedule = optax.piecewise_constant_schedule(0.1, {4: 0.5})  # its clock goes on
    inner = optax.chain(optax.add_decayed_weights(0.05), optax.sgd(schedule, momentum=0.9))
    rates = {"a": (1.0, 0.0), "b": (0.0, 1.0), "c": (0.2, 1.0)}
    tx = two_phases(inner, first_steps=3, rates=lambda path: rates[path[0]])
    start = {name: jnp.array([1.0, -2.0]) for name in rates}
    gradients = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)

    def sgd(value, steps, factor):
        momentum = np.zeros(2)
        for number in steps:
            momentum = 0.9 * momentum + gradients[number] + 0.05 * value
            value = value - factor * 0.1 * (0.5 if number >= 4 else 1.0) * momentum
        return value

    params, opt_state = start, tx.init(start)
    for each in gradients:
        updates, opt_state = tx.update(dict.fromkeys(rates, each), opt_state, params)
        params = optax.apply_updates(params, updates)
    for name, factors in rates.items():
        value = np.array([1.0, -2.0])
        for steps, factor in zip((range(3), range(3, 6)), factors, strict=True):
            value = sgd(value, steps, factor)
        np.testing.assert_allclose(params[name], value, rtol=1e-5)
