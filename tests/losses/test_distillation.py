"""Properties of the losses over logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(3, 6, 5)).astype(np.float32)  # [networks, B, N]
LABELS = np.array([0, 1, 2, 3, 4, 0])

LOSSES = {
    "cross_entropy": lambda logits: losses.cross_entropy(logits[0], LABELS),
    "cross_entropy_of_targets": lambda logits: losses.cross_entropy(
        logits[0], jax.nn.one_hot(LABELS, 5)
    ),
    "kd": lambda logits: losses.kd(logits[0], logits[1], temperature=3.0),
    "mutual_learning": lambda logits: losses.mutual_learning(logits, temperature=2.0),
    "distill_from_mean": lambda logits: losses.distill_from_mean(logits, temperature=3.0),
}


@pytest.fixture(params=LOSSES.values(), ids=LOSSES)
def loss(request):
    return request.param


def test_one_value_per_example_with_and_without_jit(loss):
    values = loss(list(LOGITS))
    assert values.shape == (6,)
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(jax.jit(loss)(list(LOGITS)), values, rtol=1e-5, atol=1e-6)


def test_half_precision_is_computed_in_float32(loss):
    rounded = [jnp.asarray(each, jnp.bfloat16) for each in LOGITS]
    values = loss(rounded)
    assert values.dtype == jnp.float32
    np.testing.assert_array_equal(values, loss([each.astype(jnp.float32) for each in rounded]))
    np.testing.assert_allclose(values, loss(list(LOGITS)), rtol=0.05, atol=0.01)


def test_large_logits_give_finite_values_and_gradients(loss):
    value, gradients = jax.value_and_grad(lambda logits: loss(logits).sum())(list(1e4 * LOGITS))
    assert np.isfinite(value)
    assert np.isfinite(gradients).all()


def test_kd_by_its_definition():
    def softmax(x):
        return np.exp(x) / np.exp(x).sum(-1, keepdims=True)

    student, teacher = LOGITS[:2].astype(np.float64)
    p, q = softmax(teacher / 3), softmax(student / 3)
    expected = 9 * (p * np.log(p / q)).sum(-1)
    np.testing.assert_allclose(losses.kd(*LOGITS[:2], temperature=3.0), expected, rtol=1e-5)


def test_kd_is_zero_at_equality_and_for_shifted_logits():
    for scale in (1.0, 100.0):
        logits = scale * LOGITS[0]
        assert not losses.kd(logits, logits, temperature=4.0).any()
        shifted = losses.kd(logits, logits + 7.0, temperature=4.0)
        np.testing.assert_allclose(shifted, 0.0, atol=1e-3)


def test_the_teacher_gets_a_gradient_only_on_demand():
    def total(teacher, stop_teacher):
        values = losses.kd(LOGITS[0], teacher, temperature=2.0, stop_teacher=stop_teacher)
        return values.sum()

    gradient = jax.grad(total)
    assert not gradient(LOGITS[1], True).any()
    assert np.abs(gradient(LOGITS[1], False)).min() > 0


def test_gradient_scale_of_kd_does_not_depend_on_the_temperature():
    def gradient(temperature):
        student, teacher = 0.01 * LOGITS[:2]
        return jax.grad(lambda x: losses.kd(x, teacher, temperature=temperature).sum())(student)

    norms = [np.linalg.norm(gradient(temperature)) for temperature in (1.0, 3.0, 10.0)]
    np.testing.assert_allclose(norms, norms[0], rtol=0.01)


@pytest.mark.parametrize("name", ["kd", "mutual_learning", "distill_from_mean"])
def test_permuted_batch_gives_permuted_values(name):
    order = np.array([3, 1, 5, 0, 2, 4])
    permuted = LOSSES[name](LOGITS[:, order])
    np.testing.assert_allclose(permuted, LOSSES[name](LOGITS)[order], rtol=1e-6)


@pytest.mark.parametrize("name", ["mutual_learning", "distill_from_mean"])
def test_permuted_networks_give_equal_values(name):
    permuted = LOSSES[name](LOGITS[[2, 0, 1]])
    np.testing.assert_allclose(permuted, LOSSES[name](LOGITS), rtol=1e-5, atol=1e-6)


def test_mutual_learning_of_two_is_kd_in_both_directions():
    first, second = LOGITS[:2]
    both = losses.kd(first, second, temperature=2.0) + losses.kd(second, first, temperature=2.0)
    np.testing.assert_allclose(losses.mutual_learning([first, second], temperature=2.0), both)


def test_mutual_learning_teachers_are_constants():
    """Network 0's gradient is that of its own terms alone, in which the others are teachers."""

    def own_terms(first):
        terms = [losses.kd(first, other, temperature=2.0) for other in LOGITS[1:]]
        return sum(terms).sum() / 2

    gradient = jax.grad(lambda logits: losses.mutual_learning(logits, temperature=2.0).sum())
    np.testing.assert_allclose(
        gradient(list(LOGITS))[0], jax.grad(own_terms)(LOGITS[0]), rtol=1e-5, atol=1e-7
    )


def test_mutual_learning_needs_two_networks():
    with pytest.raises(ValueError, match="at least two networks, got 1"):
        losses.mutual_learning([LOGITS[0]], temperature=2.0)


def test_only_the_students_learn_from_the_mean():
    def total(logits):
        return losses.distill_from_mean(logits, temperature=3.0, students=[2]).sum()

    first, second, last = jax.grad(total)(list(LOGITS))
    assert not first.any()
    assert not second.any()
    assert last.any()


def test_cross_entropy_of_labels_and_of_their_probabilities_agree():
    np.testing.assert_allclose(
        LOSSES["cross_entropy"](LOGITS), LOSSES["cross_entropy_of_targets"](LOGITS), rtol=1e-6
    )
