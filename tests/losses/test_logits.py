"""DKD, DIST and standardized logits, against the papers' equations and by their properties."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses

RANDOM = np.random.default_rng(0)
STUDENT, TEACHER = RANDOM.normal(scale=2.0, size=(2, 6, 5))
LABELS = np.array([0, 1, 2, 3, 4, 0])

FUNCTIONS = {
    "dkd": functools.partial(losses.dkd, labels=LABELS, alpha=1.0, beta=8.0, temperature=4.0),
    "dist": functools.partial(losses.dist, beta=2.0, gamma=3.0, temperature=4.0),
    "zscore": lambda student, teacher: losses.kd(
        losses.standardize(student), losses.standardize(teacher), temperature=2.0
    ),
}

LOSSES = {name: jax.jit(loss) for name, loss in FUNCTIONS.items()}


@pytest.fixture(params=LOSSES.values(), ids=LOSSES)
def loss(request):
    return request.param


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def divergence(p, q):
    return (p * np.log(p / q)).sum(-1)


def numpy_dkd(student, teacher, alpha, beta, temperature):
    """Equation by equation, image by image."""
    values = []
    for s, t, label in zip(student / temperature, teacher / temperature, LABELS, strict=True):
        others = np.arange(len(s)) != label
        p_s, p_t = softmax(s), softmax(t)
        binary = [np.array([p[label], p[others].sum()]) for p in (p_t, p_s)]
        rest = [p[others] / p[others].sum() for p in (p_t, p_s)]
        values.append(alpha * divergence(*binary) + beta * divergence(*rest))
    return temperature**2 * np.array(values)


def numpy_dist(student, teacher, beta, gamma, temperature):
    """The scalar of the batch, with numpy's own correlation."""
    p_s, p_t = softmax(student / temperature), softmax(teacher / temperature)

    def distance(a, b):
        return np.mean([1 - np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)])

    return temperature**2 * (beta * distance(p_s, p_t) + gamma * distance(p_s.T, p_t.T))


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 8.0), (0.3, 0.0), (0.0, 2.0)])
def test_dkd_by_its_definition(float64, alpha, beta):
    actual = losses.dkd(STUDENT, TEACHER, LABELS, alpha=alpha, beta=beta, temperature=4.0)
    np.testing.assert_allclose(actual, numpy_dkd(STUDENT, TEACHER, alpha, beta, 4.0), rtol=1e-9)


def test_dkd_with_the_teachers_own_weight_is_kd(float64):
    others = 1 - np.take_along_axis(softmax(TEACHER / 3.0), LABELS[:, None], axis=1)[:, 0]
    decoupled = losses.dkd(STUDENT, TEACHER, LABELS, alpha=1.0, beta=others, temperature=3.0)
    np.testing.assert_allclose(decoupled, losses.kd(STUDENT, TEACHER, temperature=3.0), rtol=1e-9)


def test_dkd_of_two_classes_has_the_labels_part_only():
    two = functools.partial(losses.dkd, STUDENT[:, :2], TEACHER[:, :2], LABELS % 2, alpha=1.0)
    np.testing.assert_allclose(
        two(beta=5.0, temperature=1.0),
        losses.kd(STUDENT[:, :2], TEACHER[:, :2], temperature=1.0),
        rtol=1e-4,
    )


@pytest.mark.parametrize(("beta", "gamma"), [(2.0, 3.0), (1.0, 0.0), (0.0, 1.0)])
def test_dist_by_its_definition(float64, beta, gamma):
    actual = losses.dist(STUDENT, TEACHER, beta=beta, gamma=gamma, temperature=4.0, epsilon=0.0)
    expected = numpy_dist(STUDENT, TEACHER, beta, gamma, 4.0)
    np.testing.assert_allclose(actual.mean(), expected, rtol=1e-9)


def test_dist_does_not_mind_scale_and_shift_of_the_predictions(float64):
    """Probabilities moved towards uniform ones have the same correlations."""
    p = softmax(TEACHER)
    mixed = np.log(0.5 * p + 0.5 / p.shape[1])
    options = {"beta": 1.0, "gamma": 1.0, "temperature": 1.0, "epsilon": 0.0}
    np.testing.assert_allclose(losses.dist(mixed, TEACHER, **options).mean(), 0.0, atol=1e-9)
    expected = losses.dist(STUDENT, TEACHER, **options).mean()
    np.testing.assert_allclose(losses.dist(STUDENT, mixed, **options).mean(), expected, rtol=1e-9)


def test_dist_of_equal_predictions_is_finite():
    """Nothing correlates with a constant: the distance is 1, without a gradient."""
    zeros = jnp.zeros((6, 5))
    options = {"beta": 1.0, "gamma": 1.0, "temperature": 1.0}
    run = jax.jit(jax.value_and_grad(lambda *both: losses.dist(*both, **options).mean()))
    value, gradient = run(zeros, TEACHER)
    np.testing.assert_allclose(value, 2.0, rtol=1e-6)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("unbiased", [False, True])
def test_standardized_logits(float64, unbiased):
    z = losses.standardize(STUDENT, unbiased=unbiased, epsilon=0.0)
    np.testing.assert_allclose(z.mean(-1), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.std(z, axis=-1, ddof=int(unbiased)), 1.0, rtol=1e-12)
    moved = losses.standardize(3.0 * STUDENT - 7.0, unbiased=unbiased, epsilon=0.0)
    np.testing.assert_allclose(moved, z, rtol=1e-9)


def test_equal_logits_standardize_to_zeros_with_a_finite_gradient():
    value, pullback = jax.vjp(losses.standardize, jnp.full((2, 3), 5.0))
    assert not value.any()
    assert np.isfinite(pullback(jnp.ones((2, 3)))[0]).all()


@pytest.mark.parametrize("name", LOSSES)
def test_one_value_per_example_with_and_without_jit(name):
    student, teacher = STUDENT.astype(np.float32), TEACHER.astype(np.float32)
    values = FUNCTIONS[name](student, teacher)
    assert values.shape == (6,)
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(LOSSES[name](student, teacher), values, rtol=1e-4, atol=1e-5)


def test_half_precision_is_computed_in_float32(loss):
    rounded = [jnp.asarray(each, jnp.bfloat16) for each in (STUDENT, TEACHER)]
    values = loss(*rounded)
    assert values.dtype == jnp.float32
    np.testing.assert_array_equal(values, loss(*(each.astype(jnp.float32) for each in rounded)))


def test_large_logits_give_finite_values_and_gradients(loss):
    run = jax.jit(jax.value_and_grad(lambda *both: loss(*both).sum()))
    value, gradient = run(1e4 * STUDENT, 1e4 * TEACHER)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_equal_networks_have_no_loss_and_no_gradient(loss):
    student = TEACHER.astype(np.float32)
    run = jax.jit(jax.value_and_grad(lambda *both: loss(*both).mean()))
    value, gradient = run(student, student)
    np.testing.assert_allclose(value, 0.0, atol=1e-4)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-5)


def test_the_teacher_is_a_constant(loss):
    run = jax.jit(jax.grad(lambda *both: loss(*both).sum(), 1))
    gradient = run(STUDENT, TEACHER)
    assert not gradient.any()


def test_permuted_batch_gives_permuted_values(loss):
    order = np.array([5, 1, 2, 3, 4, 0])  # images 5 and 0 have the same label
    permuted = loss(STUDENT[order], TEACHER[order])
    np.testing.assert_allclose(permuted, loss(STUDENT, TEACHER)[order], rtol=1e-4, atol=1e-5)


def test_dist_on_two_devices_is_that_of_the_global_batch(float64):
    """Values and gradients, averaged over devices, of one device with all images."""

    def mean(scale, student, teacher, axis_name=None):
        values = losses.dist(
            scale * student, teacher, beta=1.0, gamma=2.0, temperature=2.0, axis_name=axis_name
        )
        return values.mean()

    def on_device(scale, student, teacher):
        result = jax.value_and_grad(mean)(scale, student, teacher, "batch")
        return jax.lax.pmean(result, "batch")

    scale = np.linspace(0.5, 2.0, 5)
    expected = jax.jit(jax.value_and_grad(mean))(scale, STUDENT, TEACHER)
    halves = [each.reshape(2, 3, 5) for each in (STUDENT, TEACHER)]
    mapped = jax.jit(jax.vmap(on_device, in_axes=(None, 0, 0), axis_name="batch"))
    for actual, wanted in zip(mapped(scale, *halves), expected, strict=True):
        for device in actual:
            np.testing.assert_allclose(device, wanted, rtol=1e-9)
