"""The optimizers against PyTorch's, where it has them, and the rules of their papers."""

from __future__ import annotations

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import config as configs
from kdjax.errors import UserError
from kdjax.registry import Registry
from kdjax.training import optimizers

torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)
SGD = {
    "nesterov": {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
    "heavy ball": {"momentum": 0.9, "nesterov": False, "weight_decay": 1e-2},
    "plain": {"momentum": 0.0, "nesterov": False, "weight_decay": 1e-2},
}
ADAM = {"beta1": 0.8, "beta2": 0.97, "epsilon": 1e-6, "weight_decay": 0.1}
random = np.random.default_rng(0)
START = {"w": random.normal(size=(3, 4)), "b": random.normal(size=4)}
TARGET = {"w": random.normal(size=(3, 4)), "b": random.normal(size=4)}
RATES = [0.3, 0.3, 0.03, 0.03, 0.003]  # learning rate of each step


def gradient(name, p):
    """Of a function without constant curvature, so that every step's gradient differs."""
    return p - TARGET[name] + 0.1 * p**3


def settings(**options):
    config = configs.base()
    config.optimizer.update(options)
    return config


def ours(**options) -> list[dict[str, np.ndarray]]:
    """The parameters after every step."""
    options |= {"learning_rate": RATES[0], "schedule": "multistep"}
    config = settings(**options, milestones=(1, 2), factors=(0.1, 0.1))
    with jax.enable_x64(True):
        tx = optimizers.create(config, steps_per_epoch=2)
        params = jax.tree.map(jnp.asarray, START)
        state, path = tx.init(params), []
        for _ in RATES:
            grads = {name: gradient(name, p) for name, p in params.items()}
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            path.append(jax.device_get(params))
    return path


def by_rule(rule) -> list[dict[str, np.ndarray]]:
    """The same by `rule`, which makes `(rate, parameters, gradient) -> parameters` of a name."""
    params, path, rules = START, [], {name: rule(name) for name in START}
    for rate in RATES:
        params = {name: rules[name](rate, p, gradient(name, p)) for name, p in params.items()}
        path.append(params)
    return path


def by_torch(kind, **options) -> list[dict[str, np.ndarray]]:
    import torch

    params = {name: torch.nn.Parameter(torch.tensor(p)) for name, p in START.items()}
    optimizer, path = getattr(torch.optim, kind)(params.values(), lr=RATES[0], **options), []
    for rate in RATES:
        optimizer.param_groups[0]["lr"] = rate
        for name, p in params.items():
            p.grad = torch.tensor(gradient(name, p.detach().numpy()))
        optimizer.step()
        path.append({name: p.detach().numpy().copy() for name, p in params.items()})
    return path


def assert_same(actual, expected):
    for mine, theirs in zip(actual, expected, strict=True):
        for name, value in theirs.items():
            np.testing.assert_allclose(mine[name], value, rtol=1e-12, err_msg=name)


def sgd_rule(momentum: float, nesterov: bool, weight_decay: float):
    """PyTorch's SGD without dampening, as its documentation states it."""

    def rule(name):
        buffer = None

        def step(rate, p, g):
            nonlocal buffer
            g = g + weight_decay * p
            if momentum:
                buffer = g if buffer is None else momentum * buffer + g
                g = g + momentum * buffer if nesterov else buffer
            return p - rate * g

        return step

    return rule


@pytest.mark.parametrize("options", SGD.values(), ids=SGD)
def test_sgd_follows_torchs_rule(options):
    assert_same(ours(**options), by_rule(sgd_rule(**options)))


@torch
@pytest.mark.parametrize("options", SGD.values(), ids=SGD)
def test_sgd_follows_torch(options):
    assert_same(ours(**options), by_torch("SGD", **options))


def adam_rule(decayed, scaled):
    """Adam with decoupled weight decay; the decay and the trust ratio by names of parameters."""

    def rule(name):
        m = v = 0.0
        t = 0

        def step(rate, p, g):
            nonlocal m, v, t
            t += 1
            m = ADAM["beta1"] * m + (1 - ADAM["beta1"]) * g
            v = ADAM["beta2"] * v + (1 - ADAM["beta2"]) * g**2
            m_hat, v_hat = m / (1 - ADAM["beta1"] ** t), v / (1 - ADAM["beta2"] ** t)
            r = m_hat / (np.sqrt(v_hat) + ADAM["epsilon"])
            if name in decayed:
                r = r + ADAM["weight_decay"] * p
            trust = np.linalg.norm(p) / np.linalg.norm(r) if name in scaled else 1.0
            return p - rate * trust * r

        return step

    return rule


def test_adamw_follows_its_algorithm():
    assert_same(ours(name="adamw", **ADAM), by_rule(adam_rule(decayed="wb", scaled="")))


@torch
def test_adamw_follows_torch():
    options = {"eps": ADAM["epsilon"], "weight_decay": ADAM["weight_decay"]}
    expected = by_torch("AdamW", betas=(ADAM["beta1"], ADAM["beta2"]), **options)
    assert_same(ours(name="adamw", **ADAM), expected)


def test_lamb_follows_its_algorithm_and_leaves_biases_to_adam():
    assert_same(ours(name="lamb", **ADAM), by_rule(adam_rule(decayed="w", scaled="w")))


def test_lars_follows_its_algorithm_and_leaves_biases_to_momentum():
    options = {"momentum": 0.9, "weight_decay": 0.1, "trust_coefficient": 0.02}

    def rule(name):
        velocity = 0.0

        def step(rate, p, g):
            nonlocal velocity
            if name == "w":
                g = g + options["weight_decay"] * p
                g = options["trust_coefficient"] * np.linalg.norm(p) / np.linalg.norm(g) * g
            velocity = options["momentum"] * velocity + rate * g
            return p - velocity

        return step

    assert_same(ours(name="lars", nesterov=False, **options), by_rule(rule))


def test_gradients_are_clipped_to_the_norm_of_all_of_them():
    tx = optimizers.create(settings(clip_norm=1.0, momentum=0.0, weight_decay=0.0), 1)
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    for scale, expected in ((1.0, (0.06, 0.08)), (0.05, (0.015, 0.02))):
        grads = {"a": jnp.full(1, 3 * scale), "b": jnp.full(1, 4 * scale)}
        updates, _ = tx.update(grads, tx.init(params), params)
        found = [-float(updates[name][0]) for name in "ab"]
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_an_optimizer_from_outside(monkeypatch):
    monkeypatch.setattr(optimizers, "OPTIMIZERS", Registry("optimizer", "config.optimizer.name"))

    @optimizers.register_optimizer("sign")
    def sign(settings, learning_rate):
        return optax.chain(optax.scale_by_sign(), optax.scale_by_learning_rate(learning_rate))

    tx = optimizers.create(settings(name="sign", schedule="constant", learning_rate=0.5), 1)
    updates, _ = tx.update({"w": jnp.asarray([3.0, -2.0])}, tx.init({"w": jnp.zeros(2)}))
    np.testing.assert_array_equal(updates["w"], [-0.5, 0.5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "adamv"}, "config.optimizer.name='adamv' is unknown; did you mean 'adamw'"),
        ({"schedule": "step"}, "config.optimizer.schedule='step' is unknown"),
        ({"schedule": "sgdr"}, "config.optimizer.period must be positive"),
        ({"schedule": "multistep", "milestones": (3,)}, "milestones / factors: 1 milestones"),
    ],
)
def test_errors_name_the_setting(change, message):
    with pytest.raises(UserError, match=message):
        optimizers.check(settings(**change))


def first_update(start=START, **options):
    """The update of the first step."""
    tx = optimizers.create(settings(**options), steps_per_epoch=2)
    params = jax.tree.map(jnp.asarray, start)
    grads = {name: jnp.asarray(gradient(name, p)) for name, p in start.items()}
    return tx.update(grads, tx.init(params), params)[0]


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb", "lars"])
def test_decay_is_for_all_parameters_or_for_matrices(name):
    options = {"name": name, "weight_decay": 0.1}
    usual, none = first_update(**options), first_update(name=name, weight_decay=0.0)
    every, matrices = (first_update(**options, decayed=some) for some in ("all", "matrices"))
    assert not np.allclose(every["b"], none["b"], rtol=1e-4)
    assert not np.allclose(matrices["w"], none["w"], rtol=1e-4)
    np.testing.assert_array_equal(matrices["b"], none["b"])
    np.testing.assert_array_equal(every["w"], matrices["w"])
    expected = matrices if name in ("lamb", "lars") else every
    jax.tree.map(np.testing.assert_array_equal, usual, expected)


def test_gradients_are_clipped_by_value_then_by_norm():
    options = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0, "learning_rate": 1.0}
    by_value = first_update(**options, clip_value=0.5)
    clipped = {name: np.clip(gradient(name, p), -0.5, 0.5) for name, p in START.items()}
    jax.tree.map(lambda u, g: np.testing.assert_allclose(u, -g, rtol=1e-6), by_value, clipped)
    norm = np.sqrt(sum((g**2).sum() for g in clipped.values()))
    both = first_update(**options, clip_value=0.5, clip_norm=0.25)
    jax.tree.map(
        lambda u, g: np.testing.assert_allclose(u, -g * 0.25 / norm, rtol=1e-5), both, clipped
    )
