"""Properties of the losses over the pairs of a batch, on one device and on several."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from kdjax import losses

RANDOM = np.random.default_rng(0)
DEVICES, PER_DEVICE = 4, 2
BATCH, FEATURES = DEVICES * PER_DEVICE, 6
STUDENT, TEACHER = RANDOM.normal(size=(2, BATCH, FEATURES)).astype(np.float32)

FUNCTIONS = {
    "similarity_preserving": losses.similarity_preserving,
    "correlation_congruence": losses.correlation_congruence,
    "rkd_distance": losses.rkd_distance,
    "rkd_angle": losses.rkd_angle,
    "pkt": losses.pkt,
}
LOSSES = {name: jax.jit(loss) for name, loss in FUNCTIONS.items()}
WITHOUT_ORDER = [name for name in LOSSES if name != "correlation_congruence"]


@pytest.fixture(params=LOSSES.values(), ids=LOSSES)
def loss(request):
    return request.param


@functools.cache
def gradients(loss):
    """The sum of a loss, and its gradients to student and teacher, compiled once."""
    summed = lambda student, teacher: loss(student, teacher).sum()  # noqa: E731
    return jax.jit(jax.value_and_grad(summed, (0, 1)))


@pytest.mark.parametrize("name", LOSSES)
def test_one_value_per_example_with_and_without_jit(name):
    values = FUNCTIONS[name](STUDENT, TEACHER)
    assert values.shape == (BATCH,)
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(LOSSES[name](STUDENT, TEACHER), values, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", WITHOUT_ORDER)
def test_values_follow_the_order_of_the_batch(name):
    order = RANDOM.permutation(BATCH)
    values = LOSSES[name](STUDENT[order], TEACHER[order])
    np.testing.assert_allclose(values, LOSSES[name](STUDENT, TEACHER)[order], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", WITHOUT_ORDER)
def test_relations_do_not_need_vectors_of_one_length(name):
    assert LOSSES[name](STUDENT, TEACHER[:, :4]).shape == (BATCH,)


def test_half_precision_is_computed_in_float32(loss):
    half = [jnp.asarray(each, jnp.bfloat16) for each in (STUDENT, TEACHER)]
    values = loss(*half)
    assert values.dtype == jnp.float32
    np.testing.assert_array_equal(values, loss(*(each.astype(jnp.float32) for each in half)))


def test_zero_at_equality(loss):
    np.testing.assert_allclose(loss(STUDENT, STUDENT), 0.0, atol=1e-6)
    assert loss(STUDENT, TEACHER).mean() > 1e-3


@pytest.mark.parametrize("name", ["rkd_distance", "rkd_angle"])
def test_rkd_ignores_where_the_origin_is_and_how_long_a_unit_is(name):
    values = LOSSES[name](3 * STUDENT + 1, TEACHER)
    np.testing.assert_allclose(values, LOSSES[name](STUDENT, TEACHER), rtol=1e-3, atol=1e-6)


def test_the_teacher_gets_no_gradient(loss):
    _, (student, teacher) = gradients(loss)(STUDENT, TEACHER)
    assert np.any(student)
    assert not np.any(teacher)


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e4])
@pytest.mark.parametrize("teacher_scale", [0.0, 1.0])
def test_values_and_gradients_are_finite(loss, scale, teacher_scale):
    inputs = scale * STUDENT, teacher_scale * TEACHER
    value, (gradient, _) = gradients(loss)(*inputs)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_images_that_coincide_give_small_gradients(loss):
    """Not the 1e12 of a difference of length zero that is normalized."""
    student = STUDENT.copy()
    student[1] = student[0]
    _, (gradient, _) = gradients(loss)(student, TEACHER)
    assert np.abs(gradient).max() < 100


def test_a_single_image_has_no_relations(loss):
    value, (gradient, _) = gradients(loss)(STUDENT[:1], TEACHER[:1])
    np.testing.assert_allclose(value, 0.0, atol=1e-6)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


def test_similarity_preserving_sums_layers_of_any_shape():
    student = {"stage1": STUDENT.reshape(BATCH, 1, 2, 3), "stage2": STUDENT}
    teacher = {"stage1": TEACHER, "stage2": TEACHER[:, :2]}
    expected = losses.similarity_preserving(STUDENT, TEACHER)
    expected += losses.similarity_preserving(STUDENT, TEACHER[:, :2])
    np.testing.assert_allclose(losses.similarity_preserving(student, teacher), expected, rtol=1e-5)


def test_correlation_congruence_needs_vectors_of_one_length():
    with pytest.raises(ValueError, match="one shape"):
        losses.correlation_congruence(STUDENT, TEACHER[:, :4])


def test_rkd_is_the_weighted_sum_of_its_parts():
    values = losses.rkd(STUDENT, TEACHER, distance_weight=2.0, angle_weight=3.0)
    distance, angle = (
        function(STUDENT, TEACHER) for function in (losses.rkd_distance, losses.rkd_angle)
    )
    np.testing.assert_allclose(values, 2 * distance + 3 * angle, rtol=1e-6)


def test_rkd_tells_small_distances_between_vectors_that_are_far_from_zero():
    near = np.float32(1000) + np.float32(2**-7) * np.arange(BATCH, dtype=np.float32)[:, None]
    exact = np.arange(BATCH, dtype=np.float32)[:, None]
    np.testing.assert_allclose(losses.rkd_distance(near, exact), 0.0, atol=1e-6)


# Several devices: with `axis_name`, the mean over devices is the loss of the global batch.

WEIGHTS = list(RANDOM.normal(size=(2, FEATURES, 5)).astype(np.float32))  # student, teacher


def means(weights, inputs, axis_name=None):
    """The mean of each loss `[5]` over this device's images, with gradients to both networks."""
    features = [inputs @ each for each in weights]
    values = []
    for loss in FUNCTIONS.values():
        options = {"stop_teacher": False} if "stop_teacher" in loss.__kwdefaults__ else {}
        values.append(loss(*features, axis_name=axis_name, **options).mean())
    return jnp.stack(values)


def on_device(weights, inputs):
    """What one of several devices computes: values `[5]` and gradients `[5, ...]`, averaged."""
    function = functools.partial(means, axis_name="batch")
    result = function(weights, inputs), jax.jacrev(function)(weights, inputs)
    return jax.lax.pmean(result, "batch")


@functools.cache
def one_device():
    return jax.jit(lambda *inputs: (means(*inputs), jax.jacrev(means)(*inputs)))(WEIGHTS, STUDENT)


def sliced(x):
    return x.reshape(DEVICES, PER_DEVICE, *x.shape[1:])


def assert_equal(actual, expected):
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(compare, actual, expected)


def check_real_devices():
    assert jax.device_count() == DEVICES
    mapped = jax.pmap(on_device, "batch", in_axes=(None, 0), out_axes=None)
    assert_equal(mapped(WEIGHTS, sliced(STUDENT)), one_device())
    sharded = jax.shard_map(
        on_device,
        mesh=Mesh(np.asarray(jax.devices()), ("batch",)),
        in_specs=(PartitionSpec(), PartitionSpec("batch")),
        out_specs=PartitionSpec(),
        check_vma=False,  # else the gradients of the replicated weights come summed over devices
    )
    assert_equal(jax.jit(sharded)(WEIGHTS, STUDENT), one_device())


def test_mapped_axis_gives_the_values_and_gradients_of_the_global_batch():
    mapped = jax.vmap(on_device, in_axes=(None, 0), axis_name="batch")
    every = jax.jit(mapped)(WEIGHTS, sliced(STUDENT))
    assert_equal(jax.tree.map(lambda x: x[0], every), one_device())


@pytest.mark.slow
def test_devices_give_the_values_and_gradients_of_the_global_batch():
    if jax.device_count() == DEVICES:
        check_real_devices()
        return
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(DEVICES), "JAX_PLATFORMS": "cpu"}
    program = "from tests.losses import test_relations as t; t.check_real_devices()"
    command = [sys.executable, "-W", "error", "-c", program]
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    subprocess.run(command, check=True, env=environment, cwd=root, timeout=300)


def test_shard_map_with_its_checks():
    mapped = jax.shard_map(
        lambda x: jax.lax.pmean(means(WEIGHTS, x, "batch"), "batch"),
        mesh=Mesh(np.asarray(jax.devices()[:1]), ("batch",)),
        in_specs=PartitionSpec("batch"),
        out_specs=PartitionSpec(),
    )
    assert_equal(jax.jit(mapped)(STUDENT), one_device()[0])
