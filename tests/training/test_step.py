"""The pure train step: what it computes, and that a loop of steps is the steps one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import models, parallel
from kdjax.methods import CONSTANTS, MEMORY, Method, evaluation, mcl
from kdjax.methods.detection_evaluation import DETECTION
from kdjax.parallel import AXIS
from kdjax.training import neighbors, rows
from kdjax.training import step as training

BATCH = 8


def linear_method():
    """Least squares with noise from the key, and a state that counts the examples it saw."""

    def init(key, images):
        return {"w": jax.random.normal(key, images.shape[1:])}, {"seen": jnp.zeros(())}

    def loss(params, model_state, batch, key):
        noise = 0.01 * jax.random.normal(key, batch["label"].shape)
        error = (batch["image"] * params["w"]).sum((1, 2, 3)) - batch["label"] + noise
        seen = model_state["seen"] + batch["label"].shape[0]
        return jnp.mean(error**2), ({"seen": seen}, {"error": jnp.mean(jnp.abs(error))})

    return Method(init, loss, lambda params, model_state, images: {})


def prepare(constants, batch, key, positions):
    del constants
    keys = jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)
    jitter = jax.vmap(lambda k: jax.random.normal(k, (2, 2, 1)))(keys)
    return {**batch, "image": batch["image"] + 0.1 * jitter}


def batches(steps):
    rng = np.random.default_rng(0)
    return {
        "image": jnp.asarray(rng.normal(size=(steps, BATCH, 2, 2, 1)), jnp.float32),
        "label": jnp.asarray(rng.integers(0, 3, (steps, BATCH)), jnp.int32),
        "index": jnp.zeros((steps, BATCH), jnp.int32),
    }


def run(state, tx, some, devices=1):
    """The step under `vmap` with a named axis, which is what every backend does to it."""
    step = training.train_step(linear_method(), tx, prepare, seed=0)
    split = jax.tree.map(
        lambda x: x.reshape(x.shape[0], devices, -1, *x.shape[2:]).swapaxes(0, 1), some
    )
    mapped = jax.vmap(step, in_axes=(None, None, 0), out_axes=0, axis_name=AXIS)
    return jax.tree.map(lambda x: x[0], jax.jit(mapped)(state, {}, split))


@pytest.fixture
def start():
    tx = optax.sgd(0.05, momentum=0.9)
    return training.init_state(linear_method(), tx, jax.random.key(0), (2, 2, 1)), tx


def test_steps_in_one_dispatch_equal_steps_one_by_one(start):
    state, tx = start
    some = batches(3)
    together, metrics = run(state, tx, some)
    one_by_one = state
    for i in range(3):
        one_by_one, row = run(one_by_one, tx, jax.tree.map(lambda x, i=i: x[i : i + 1], some))
        np.testing.assert_allclose(metrics["loss"][i], row["loss"][0], rtol=1e-5)
    assert together.step == 3 and together.model_state["seen"] == 3 * BATCH
    np.testing.assert_allclose(together.params["w"], one_by_one.params["w"], rtol=1e-5)


def test_scan_of_accelerators_equals_straight_line_code_of_cpus(start, monkeypatch):
    state, tx = start
    straight, metrics = run(state, tx, batches(3))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    scanned, scanned_metrics = run(state, tx, batches(3))
    np.testing.assert_allclose(scanned.params["w"], straight.params["w"], rtol=1e-5)
    assert scanned_metrics["loss"].shape == metrics["loss"].shape == (3,)


def test_the_loss_key_differs_from_step_to_step_and_the_clock_is_the_step(start):
    state, tx = start
    some = batches(1)
    first, _ = run(state, tx, some)
    again, _ = run(state, tx, some)
    later, _ = run(state._replace(step=jnp.int32(7)), tx, some)
    np.testing.assert_array_equal(first.params["w"], again.params["w"])
    assert not np.array_equal(first.params["w"], later.params["w"])
    assert later.step == 8


def test_augmentation_does_not_depend_on_the_number_of_devices():
    some = jax.tree.map(lambda x: x[0], batches(1))
    make = training.step_batch(prepare, seed=1)
    whole, _ = make({}, some, 3, 0)
    half = BATCH // 2
    parts = [jax.tree.map(lambda x, i=i: x[i * half :][:half], some) for i in range(2)]
    (first, first_key), (second, second_key) = (make({}, parts[i], 3, i) for i in range(2))
    together = np.concatenate([first["image"], second["image"]])
    np.testing.assert_array_equal(whole["image"], together)
    assert not np.allclose(whole["image"], some["image"])
    assert first_key != second_key  # what losses draw is another on every device


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_scan_can_carry_the_state_of_mcl(monkeypatch, dtype):
    """Types of the carried state must not change in a step; traced as on a GPU, not compiled."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    network = models.create("resnet8", num_classes=4, dtype=dtype, axis_name=AXIS)
    method = mcl(
        models.Cohort((network, network)),
        alpha=0.1,
        beta=0.1,
        gamma=1.0,
        lam=1.0,
        temperature=0.1,
        kd_temperature=3.0,
        projection_features=16,
        axis_name=AXIS,
    )
    tx = optax.sgd(0.1, momentum=0.9, nesterov=True)
    step = training.train_step(method, tx, lambda c, batch, key, positions: batch, seed=0)
    some = batches(2) | {"image": jnp.zeros((2, BATCH, 32, 32, 3))}
    state = jax.eval_shape(lambda: training.init_state(method, tx, jax.random.key(0), (32, 32, 3)))
    split = jax.tree.map(lambda x: x[None], some)
    mapped = jax.vmap(step, in_axes=(None, None, 0), axis_name=AXIS)
    after, metrics = jax.eval_shape(mapped, state, {}, split)
    assert jax.tree.map(lambda x: x.dtype, after) == jax.tree.map(lambda x: x.dtype, state)
    assert metrics["icl"].shape == (1, 2) and metrics["icl"].dtype == jnp.float32


def test_evaluation_masks_padding_and_counts_top5():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(6, 10)), jnp.float32)
    labels = np.argsort(-np.asarray(logits), axis=1)[np.arange(6), [0, 1, 4, 5, 0, 9]]
    method = linear_method()._replace(predict=lambda params, model_state, images: {"a": images})
    step = training.evaluation_step(
        method, lambda constants, batch: (batch["image"], batch["label"]), num_classes=10
    )
    some = {
        "image": logits[None],
        "label": jnp.asarray(labels)[None],
        "mask": jnp.asarray([[1, 1, 1, 1, 0, 1]], jnp.float32),
    }
    mapped = jax.vmap(step, in_axes=(None, None, 0), axis_name=AXIS)
    sums = mapped(({}, {}), {}, jax.tree.map(lambda x: x[None], some))
    assert (float(sums["count"][0]), float(sums["a/top1"][0]), float(sums["a/top5"][0])) == (
        5,
        1,
        3,
    )


def test_what_a_step_cannot_measure_is_refused():
    method = linear_method()
    with pytest.raises(ValueError, match="it has no `predict`"):
        training.evaluation_step(method._replace(predict=None), prepare, 10)
    with pytest.raises(ValueError, match="measured by rows"):
        training.evaluation_step(method._replace(evaluation=DETECTION), prepare, 10)
    with pytest.raises(ValueError, match="measured by sums"):
        rows.prediction_rows_step(method, prepare)
    with pytest.raises(ValueError, match="no `embeddings`"):
        neighbors.embeddings_step(method, prepare)


def test_joint_logits_are_measured_view_by_view():
    joint = np.full((2, 3, 12), -1.0, np.float32)  # 2 images, 3 views, 4 classes
    labels = np.array([1, 2])
    for image, view, found in ((0, 0, 3), (0, 1, 4), (0, 2, 2), (1, 0, 6), (1, 1, 7), (1, 2, 8)):
        joint[image, view, found] = 1.0
    found = evaluation.measures(jnp.asarray(joint), jnp.asarray(labels), num_classes=4)
    assert set(found) == {"top1", "cross_entropy"}
    np.testing.assert_allclose(found["top1"], [2 / 3, 1.0])
    right, wrong = -np.log(np.exp(1) / (np.exp(1) + 11 * np.exp(-1)) * np.array([1, np.exp(-2)]))
    np.testing.assert_allclose(found["cross_entropy"], [(2 * right + wrong) / 3, right], rtol=1e-6)


def test_scan_of_nothing_but_arrays_keeps_order():
    carry, out = parallel.scan(lambda c, x: (c * 2 + x, c), jnp.int32(0), jnp.arange(4))
    assert carry == 11 and out.tolist() == [0, 0, 1, 4]


def test_what_is_learned_after_an_update_sees_the_new_parameters(start):
    """And the batch and key of the loss; it is not averaged again."""
    state, tx = start
    plain = linear_method()

    def after_update(params, model_state, batch, key):
        loss, _ = plain.loss(params, model_state, batch, key)
        return model_state | {"later": jax.lax.pmean(loss, AXIS)}

    method = plain._replace(after_update=after_update)
    step = training.train_step(method, tx, prepare, seed=0)
    some = batches(1)
    mapped = jax.vmap(step, in_axes=(None, None, 0), axis_name=AXIS)
    after, _ = jax.jit(mapped)(state, {}, jax.tree.map(lambda x: x[None], some))
    after = jax.tree.map(lambda x: x[0], after)
    batch, key = training.step_batch(prepare, 0)({}, jax.tree.map(lambda x: x[0], some), 0, 0)
    expected, _ = plain.loss(after.params, after.model_state, batch, key)
    np.testing.assert_allclose(after.model_state["later"], expected, rtol=1e-5)
    before, _ = plain.loss(state.params, state.model_state, batch, key)
    assert abs(before - expected) > 1e-3


def test_states_are_averaged_but_for_constants_and_memories():
    def loss(params, model_state, batch, key):
        device = jax.lax.axis_index(AXIS).astype(jnp.float32)
        return params["w"] * 0, (jax.tree.map(lambda leaf: leaf + device, model_state), {})

    shape = {"own": 0.0, CONSTANTS: {"own": 0.0}, MEMORY: (0.0,), "adapters": {MEMORY: [0.0, 0.0]}}
    model_state = jax.tree.map(jnp.asarray, shape)
    method = Method(
        lambda key, images: ({"w": jnp.ones(())}, model_state), loss, lambda params, *rest: {}
    )
    tx = optax.sgd(0.1)
    state = training.init_state(method, tx, jax.random.key(0), (2, 2, 1))
    step = training.train_step(method, tx, prepare, seed=0)
    some = jax.tree.map(lambda x: x.reshape(2, 1, -1, *x.shape[2:]), batches(1))
    mapped = jax.vmap(step, in_axes=(None, None, 0), axis_name=AXIS)
    found = jax.jit(mapped)(state, {}, some)[0].model_state
    own = found.pop("own")
    np.testing.assert_array_equal(own, [0.5, 0.5])
    for leaf in jax.tree.leaves(found):
        np.testing.assert_array_equal(leaf, [0, 1])
