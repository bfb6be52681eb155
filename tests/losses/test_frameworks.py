"""The losses in projects that have nothing of kdjax but its losses."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from kdjax import losses

RANDOM = np.random.default_rng(0)
LABELS = np.arange(16) % 4
CENTERS = RANDOM.normal(size=(4, 8))
INPUTS = (CENTERS[LABELS] + 0.1 * RANDOM.normal(size=(16, 8))).astype(np.float32)
HEAVY = ("flax", "tensorflow_datasets", "orbax", "grain", "sklearn", "ml_collections", "torch")


def test_import_needs_jax_only():
    program = f"import sys, kdjax.losses; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert result.stdout.split() == []


def mutual_loss(outputs):
    """Cross entropy, mutual learning and mutual contrast of (logits, embedding) pairs."""
    logits = [each[0] for each in outputs]
    units = [each[1] / jnp.linalg.norm(each[1], axis=-1, keepdims=True) for each in outputs]
    contrast = losses.mutual_contrast(units, LABELS, temperature=0.1, kd_temperature=3.0)
    total = 0.1 * (contrast.vcl + contrast.icl) + contrast.soft_vcl + contrast.soft_icl
    total += losses.mutual_learning(logits, temperature=2.0)
    return (total + sum(losses.cross_entropy(each, LABELS) for each in logits)).mean()


def assert_falls(values):
    assert np.isfinite(values).all()
    assert values[-1] < 0.7 * values[0]


class Network(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(8, 16, rngs=rngs)
        self.classifier = nnx.Linear(16, 4, rngs=rngs)

    def __call__(self, x):
        embedding = nnx.relu(self.hidden(x))
        return self.classifier(embedding), embedding


def test_nnx_modules_learn_together():
    networks = nnx.List([Network(nnx.Rngs(seed)) for seed in (0, 1)])
    optimizer = nnx.Optimizer(networks, optax.sgd(0.1, momentum=0.9), wrt=nnx.Param)

    @nnx.jit
    def step(networks, optimizer):
        def loss(networks):
            return mutual_loss([network(INPUTS) for network in networks])

        value, gradients = nnx.value_and_grad(loss)(networks)
        optimizer.update(networks, gradients)
        return value

    assert_falls([float(step(networks, optimizer)) for _ in range(10)])


def test_pure_functions_learn_together():
    def network(params, x):
        embedding = jax.nn.relu(x @ params["hidden"])
        return embedding @ params["classifier"], embedding

    def init(seed):
        random = np.random.default_rng(seed)
        shapes = {"hidden": (8, 16), "classifier": (16, 4)}
        return {
            name: jnp.asarray(random.normal(size=shape, scale=0.3), jnp.float32)
            for name, shape in shapes.items()
        }

    @jax.jit
    @jax.value_and_grad
    def value_and_gradient(cohort):
        return mutual_loss([network(params, INPUTS) for params in cohort])

    cohort, values = [init(0), init(1)], []
    for _ in range(20):
        value, gradients = value_and_gradient(cohort)
        cohort = jax.tree.map(lambda p, g: p - 0.1 * g, cohort, gradients)
        values.append(float(value))
    assert_falls(values)
