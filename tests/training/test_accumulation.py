"""Gradient accumulation and recomputation: the numbers of the whole batch, in less memory."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import config as configs
from kdjax import data, methods
from kdjax.data import order
from kdjax.data.feed import Feed
from kdjax.errors import UserError
from kdjax.methods import Method
from kdjax.parallel import AXIS, Parallel
from kdjax.training import checks
from kdjax.training import step as training
from kdjax.training.building import build
from tests import golden
from tests import tiny_runs as runs
from tests.tiny_runs import networks  # noqa: F401

BATCH = 16
random = np.random.default_rng(0)
IMAGES = jnp.asarray(random.normal(size=(1, BATCH, 8, 8, 3)), jnp.float32)
LABELS = jnp.asarray(random.integers(0, 4, (1, BATCH)), jnp.int32)


def linear_method():
    """Least squares of shifted images; the state is the sum of the labels of each call."""

    def init(key, images):
        return {"w": jax.random.normal(key, images.shape[1:], jnp.float64)}, {"sums": jnp.zeros(9)}

    def loss(params, model_state, batch, key):
        error = (batch["image"] * params["w"]).sum((1, 2, 3)) - batch["label"]
        labels = jax.lax.psum(batch["label"].sum(), AXIS)
        sums = jnp.roll(model_state["sums"], 1).at[0].set(labels)
        return jnp.mean(error**2), ({"sums": sums}, {"worst": jnp.mean(jnp.abs(error))})

    return Method(init, loss, lambda params, model_state, images: {})


def prepare(constants, batch, key, positions):
    """Images with noise by their place in the global batch."""
    del constants
    keys = jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)
    noise = jax.vmap(lambda k: jax.random.normal(k, batch["image"].shape[1:]))(keys)
    return {**batch, "image": batch["image"] + noise}


def one_step(method, tx, state, *, micro_batches=1, devices=1, prepare=prepare):
    """The state after one step of the same global batch, and its metrics."""
    places = order.micro_batch_places(BATCH, devices, micro_batches)
    step = training.train_step(method, tx, prepare, 0, micro_batches=micro_batches, places=places)
    batches = {"image": IMAGES, "label": LABELS, "index": LABELS * 0}
    batches = jax.tree.map(
        lambda x: x[:, places].reshape(1, devices, -1, *x.shape[2:]).swapaxes(0, 1), batches
    )
    mapped = jax.vmap(step, in_axes=(None, None, 0), axis_name=AXIS)
    return jax.tree.map(lambda x: x[0], jax.jit(mapped)(state, {}, batches))


def test_a_network_without_batch_norm_learns_as_from_the_whole_batch():
    method, tx = linear_method(), optax.sgd(0.05, momentum=0.9)
    with jax.enable_x64(True):
        state = training.init_state(method, tx, jax.random.key(0), (8, 8, 3))
        whole, metrics = one_step(method, tx, state)
        for devices in (1, 2):
            parts, means = one_step(method, tx, state, micro_batches=4, devices=devices)
            np.testing.assert_allclose(parts.params["w"], whole.params["w"], rtol=1e-12)
            np.testing.assert_allclose(means["loss"], metrics["loss"], rtol=1e-12)
            np.testing.assert_allclose(means["worst"], metrics["worst"], rtol=1e-12)
            # A micro-batch is the same part of the global batch on any number of devices.
            sums = LABELS.reshape(4, 4).sum(1)[::-1]
            np.testing.assert_array_equal(parts.model_state["sums"][:4], sums)
        assert parts.step == 1


@pytest.mark.slow
def test_batch_norm_sees_the_same_micro_batches_on_one_device_and_on_two():
    config = configs.base()
    config.networks, config.batch_size = ("tiny",), BATCH
    method = methods.create(config, num_classes=4, axis_name=AXIS)
    tx = optax.sgd(0.05)
    state = training.init_state(method, tx, jax.random.key(0), (8, 8, 3))
    one, two = (
        one_step(method, tx, state, micro_batches=2, devices=devices)[0] for devices in (1, 2)
    )
    for before, a, b in zip(*map(jax.tree.leaves, (state[1:3], one[1:3], two[1:3])), strict=True):
        change = np.abs(a - before).max()
        assert change > 0
        np.testing.assert_allclose(a, b, atol=1e-4 * change)
    whole, _ = one_step(method, tx, state)
    different = jax.tree.map(lambda a, b: np.abs(a - b).max(), one.model_state, whole.model_state)
    assert max(jax.tree.leaves(different)) > 1e-3  # two updates of the running statistics


@pytest.mark.slow
def test_recomputed_activations_give_the_same_gradients():
    config = configs.base()
    config.networks = ("tiny", "tiny")
    config.method = "dml"
    variables = []
    for config.remat in (False, True):
        method = methods.create(config, num_classes=4, axis_name=None)
        params, model_state = jax.jit(method.init)(jax.random.key(0), IMAGES[0])
        batch = {"image": IMAGES[0], "label": LABELS[0], "step": jnp.int32(0)}
        gradient = jax.jit(jax.value_and_grad(method.loss, has_aux=True))
        variables.append(gradient(params, model_state, batch, jax.random.key(1)))
        text = str(jax.make_jaxpr(method.loss)(params, model_state, batch, jax.random.key(1)))
        assert text.count("prevent_cse=True") == 4 * config.remat  # two stages of two networks
    for kept, again in zip(*map(jax.tree.leaves, variables), strict=True):
        np.testing.assert_allclose(kept, again, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"remat": True}, {"optimizer.accumulate": 4}], ids=str)
def test_a_compiled_step_needs_less_memory(tmp_path, changes):
    needed = []
    for some in ({}, changes):
        config = configs.cifar_run("cross_entropy", "digits,resnet20", count=1)
        config.data.source = runs.write_arrays(tmp_path / "large.npz", size=32)
        config.batch_size = 32
        config.update_from_flattened_dict(some)
        program = build(config)
        state = program.abstract_state()
        _, batches = next(program.feed.train(0, 0))
        lowered = program.train_steps.lower(state, program.feed.train_constants(), batches)
        needed.append(lowered.compile(golden.OPTIMIZED).memory_analysis().temp_size_in_bytes)
    assert needed[1] < 0.8 * needed[0]


def test_streamed_crops_do_not_depend_on_the_number_of_devices(tmp_path):
    """Every image of a batch keeps its place, in whatever order devices have it."""
    config = configs.base()
    config.batch_size, config.optimizer.accumulate = 16, 2
    config.data.update(
        source=runs.write_arrays(tmp_path / "tiny.npz"),
        augmentation="resized_crop_flip",
        image_size=8,
        placement="stream",
    )
    dataset, found = data.load(config), []
    for devices in (1, 4):
        parallel = Parallel("pmap")
        parallel.device_count = parallel.local_device_count = devices
        feed = Feed(config, dataset, parallel, 1)
        batches = feed.train(0, 0)
        _, batch = next(batches)
        batches.close()
        flat = np.asarray(batch["image"]).reshape(16, -1)
        found.append(flat[np.argsort(feed.places)])
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer.accumulate": 3}, "accumulate=3 does not divide config.batch_size=16"),
        ({"optimizer.accumulate": 0}, "must be at least 1"),
        ({"optimizer.accumulate": 8, "data.images_per_class": 4}, "no whole groups"),
    ],
)
def test_refused(changes, message):
    config = configs.base()
    config.batch_size = 16
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=message):
        checks.check(config)


def test_micro_batches_are_divided_among_the_devices():
    checks.check_batch(16, 2, 4)
    with pytest.raises(UserError, match=r"accumulate=4: a micro-batch of 4 .* 8 devices"):
        checks.check_batch(16, 8, 4)
