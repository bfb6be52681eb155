"""bfloat16 computes the networks alone: weights, statistics, losses and updates are float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from kdjax import config as configs
from kdjax import methods
from kdjax.methods.registry import METHODS, use
from kdjax.parallel import AXIS, Parallel
from kdjax.training import optimizers
from tests.tiny_runs import networks  # noqa: F401

DEFAULT = ("cross_entropy", "mcl")
WITH_TRUNK = ("cl_ilr", "one")
NEEDS_WEIGHTS = "linear_probe"  # and other methods their teacher
CLASSES = 4


def floats(tree) -> set[str]:
    leaves = jax.tree.leaves(tree)
    return {str(leaf.dtype) for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)}


@pytest.mark.parametrize(
    "name",
    [
        *DEFAULT,
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name, entry in METHODS.items()
            if name not in (*DEFAULT, NEEDS_WEIGHTS) and "teacher" not in entry.context
            if not entry.masks and entry.objects is None
        ),
    ],
)
def test_what_is_kept_and_returned_is_float32(name):
    config = configs.base()
    use(config, name)
    for setting, need in METHODS[name].data.items():
        config.data[setting] = max(config.data[setting], need.at_least)
    config.networks, config.dtype, config.batch_size = ("resnet8",) * 2, "bfloat16", 8
    config.shared_stages = int(name in WITH_TRUNK)
    labels = jnp.arange(16) % CLASSES
    method = methods.create(
        config,
        num_classes=CLASSES,
        axis_name=None,
        train_labels=labels,
        schedule=lambda step: 0.1,
    )
    tx = method.optimizer(optimizers.create(config, 2))
    rows = 8 * (1 + config.data.partners)

    def step(key):
        images = jnp.zeros((rows, 32, 32, 3))
        params, model_state = method.init(key, images[:2])
        opt_state = tx.init(params)
        batch = {
            "image": images,
            "views": jnp.zeros((rows, max(config.data.views, 2), 32, 32, 3)),
            "label": jnp.zeros(rows, jnp.int32),
            "index": jnp.zeros(rows, jnp.int32),
            "step": jnp.int32(0),
        }
        (loss, (state, metrics)), grads = jax.value_and_grad(method.loss, has_aux=True)(
            params, model_state, batch, key
        )
        updates, new_opt_state = tx.update(grads, opt_state, params)
        return params, (model_state, state), (opt_state, new_opt_state), loss, metrics, updates

    for kept in jax.eval_shape(step, jax.random.key(0)):
        assert floats(kept) <= {"float32"}
    if method.predict is not None:
        params, model_state = jax.eval_shape(
            method.init, jax.random.key(0), jnp.zeros((2, 32, 32, 3))
        )
        predicted = jax.eval_shape(method.predict, params, model_state, jnp.zeros((2, 32, 32, 3)))
        assert floats(predicted) == {"float32"}


def test_networks_compute_in_bfloat16():
    config = configs.base()
    config.networks, config.dtype = ("resnet8",), "bfloat16"
    (network,) = methods.networks(config, CLASSES)
    images = jnp.zeros((2, 32, 32, 3))
    outputs, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), images)
    assert floats(outputs.features) == {"bfloat16"} and floats(outputs.logits) == {"float32"}


@pytest.mark.parametrize("backend", ["pmap", "shard_map"])
def test_pooled_convolutions_are_numbers(backend):
    """In jaxlib 0.11.2 and 0.12.0.1 XLA makes NaN of these on CPUs, if it is let."""
    keys = jax.random.split(jax.random.key(0), 2)
    images = jax.random.normal(keys[0], (1, 64, 8, 8, 64), jnp.bfloat16)
    kernel = jax.random.normal(keys[1], (3, 3, 64, 64), jnp.bfloat16) / 24

    def layer(x):
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jax.nn.relu((x.astype(jnp.float32) * 0.9 + 0.1).astype(x.dtype))

    def pooled(replicated, constants, images):
        del replicated, constants
        means = jnp.mean(layer(layer(images)), (1, 2), dtype=jnp.float32)
        return jax.lax.pmean(means, AXIS)

    parallel = Parallel(backend, "bfloat16")
    images = jnp.broadcast_to(images, (parallel.local_device_count, *images.shape[1:]))
    found = parallel.map(pooled)({}, {}, parallel.shard(images))
    expected = jnp.mean(layer(layer(images[0])), (1, 2), dtype=jnp.float32)  # one by one
    assert jnp.allclose(found, expected, atol=0.02)
