"""Properties of the losses over feature maps, image by image: no image sees another one."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses
from kdjax.losses import feature_maps as maps
from kdjax.losses import singular_vectors

RANDOM = np.random.default_rng(0)
BATCH = 4


def feature_maps(*shapes):
    return [RANDOM.normal(size=(BATCH, *shape)).astype(np.float32) for shape in shapes]


STUDENT = feature_maps((8, 8, 5), (4, 4, 6))
TEACHER = feature_maps((8, 8, 5), (4, 4, 6))
LOG_SCALES = [np.full(5, 1.0, np.float32), np.full(6, -1.0, np.float32)]
FUNCTIONS = {
    "hint": losses.hint,
    "attention_transfer": losses.attention_transfer,
    "vid": lambda student, teacher: losses.vid(student, teacher, LOG_SCALES),
    "activation_boundary": losses.activation_boundary,
    "factor_transfer": lambda student, teacher: losses.factor_transfer(student[0], teacher[0]),
    "fsp": losses.fsp,
    "nst": losses.nst,
    "kdsvd": lambda student, teacher: losses.kdsvd(student, teacher, k=2),
}
LOSSES = {name: jax.jit(loss) for name, loss in FUNCTIONS.items()}
DISTANCES = [name for name in LOSSES if name not in ("vid", "activation_boundary")]


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
    np.testing.assert_allclose(LOSSES[name](STUDENT, TEACHER), values, rtol=1e-4)


def test_an_example_s_value_is_its_own(loss):
    """Neither the order of the batch nor the other images matter."""
    order = np.array([2, 0, 3])
    some = loss([each[order] for each in STUDENT], [each[order] for each in TEACHER])
    np.testing.assert_allclose(some, loss(STUDENT, TEACHER)[order], rtol=1e-4)


def test_half_precision_is_computed_in_float32(loss):
    half = [[jnp.asarray(each, jnp.bfloat16) for each in side] for side in (STUDENT, TEACHER)]
    rounded = [[each.astype(jnp.float32) for each in side] for side in half]
    values = loss(*half)
    assert values.dtype == jnp.float32
    np.testing.assert_array_equal(values, loss(*rounded))


@pytest.mark.parametrize("name", DISTANCES)
def test_zero_at_equality(name):
    np.testing.assert_allclose(LOSSES[name](STUDENT, STUDENT), 0.0, atol=1e-6)
    assert (LOSSES[name](STUDENT, TEACHER) > 1e-5).all()


def test_the_teacher_gets_no_gradient(loss):
    _, (student, teacher) = gradients(loss)(STUDENT, TEACHER)
    assert any(np.any(each) for each in student)
    assert not any(np.any(each) for each in teacher)


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e4])
@pytest.mark.parametrize("teacher_scale", [0.0, 1.0])
def test_values_and_gradients_are_finite(loss, scale, teacher_scale):
    student = [scale * each for each in STUDENT]
    teacher = [teacher_scale * each for each in TEACHER]
    value, (gradient, _) = gradients(loss)(student, teacher)
    assert np.isfinite(value)
    assert all(np.isfinite(each).all() for each in gradient)


@pytest.mark.parametrize("name", ["hint", "attention_transfer", "nst"])
def test_layers_by_name_or_position_are_summed(name):
    single = sum(LOSSES[name](*pair) for pair in zip(STUDENT, TEACHER, strict=True))
    np.testing.assert_allclose(LOSSES[name](STUDENT, tuple(TEACHER)), single, rtol=1e-5)
    student = dict(zip(("stage1", "stage2"), STUDENT, strict=True))
    teacher = {"stage2": TEACHER[1], "stage1": TEACHER[0]}
    np.testing.assert_allclose(LOSSES[name](student, teacher), single, rtol=1e-5)


def test_layers_that_do_not_pair_up_are_refused():
    with pytest.raises(ValueError, match="do not pair up"):
        losses.attention_transfer({"stage1": STUDENT[0]}, {"stage2": TEACHER[0]})
    with pytest.raises(ValueError, match="do not pair up"):
        losses.attention_transfer(STUDENT, TEACHER[:1])
    with pytest.raises(ValueError, match="do not pair up"):
        losses.attention_transfer([], [])


@pytest.mark.parametrize("name", ["activation_boundary", "fsp", "kdsvd"])
def test_layers_without_an_order_are_refused_where_it_matters(name):
    named = dict(zip(("stage1", "stage2"), STUDENT, strict=True))
    with pytest.raises(ValueError, match="order"):
        LOSSES[name](named, named)


@pytest.mark.parametrize("name", ["hint", "activation_boundary", "fsp", "kdsvd"])
def test_other_numbers_of_channels_are_refused_where_they_must_agree(name):
    with pytest.raises(ValueError, match="this loss"):
        LOSSES[name](STUDENT, [TEACHER[0][..., :-1], TEACHER[1]])


@pytest.mark.parametrize("name", ["fsp", "kdsvd"])
def test_one_layer_has_no_next_one(name):
    with pytest.raises(ValueError, match="two or more"):
        LOSSES[name](STUDENT[:1], TEACHER[:1])


@pytest.mark.parametrize("old, new", [((8, 8), (4, 2)), ((7, 5), (3, 4)), ((3, 6), (1, 5))])
def test_adaptive_pooling_by_its_definition(old, new):
    [x] = feature_maps((*old, 3))
    expected = np.zeros((BATCH, *new, 3))
    for i, j in itertools.product(*map(range, new)):
        rows = slice(i * old[0] // new[0], -(-(i + 1) * old[0] // new[0]))
        columns = slice(j * old[1] // new[1], -(-(j + 1) * old[1] // new[1]))
        expected[:, i, j] = x[:, rows, columns].mean((1, 2))
    np.testing.assert_allclose(maps.adaptive_average_pool(x, new), expected, atol=1e-6)


def test_both_maps_are_pooled_where_each_is_larger_in_one_direction():
    student, teacher = losses.match_resolution(*feature_maps((8, 4, 2), (6, 6, 3)))
    assert student.shape == (BATCH, 6, 4, 2)
    assert teacher.shape == (BATCH, 6, 4, 3)


def test_attention_is_of_absolute_values():
    values = losses.attention_transfer(-np.abs(STUDENT[0]), TEACHER[0], p=3)
    expected = losses.attention_transfer(np.abs(STUDENT[0]), TEACHER[0], p=3)
    np.testing.assert_array_equal(values, expected)


def test_vid_is_the_density_of_a_gaussian():
    [mean], [target], [log_scale] = STUDENT[:1], TEACHER[:1], LOG_SCALES[:1]
    variance = np.log1p(np.exp(log_scale)) + 0.5
    density = jax.scipy.stats.norm.logpdf(target, mean, np.sqrt(variance))
    expected = -density.mean((1, 2, 3)) - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(losses.vid(mean, target, log_scale, epsilon=0.5), expected, 1e-5)


@pytest.mark.parametrize("variance", [0.01, 1.0, 200.0])
def test_vid_starts_with_the_variance_asked_for(variance):
    scale = losses.vid_log_scale(variance=variance, epsilon=1e-5)
    np.testing.assert_allclose(np.logaddexp(0, scale) + 1e-5, variance, rtol=1e-6)


def test_activation_boundary_by_its_cases():
    student = np.array([[0.5, 1.0, 2.0, -3.0, 0.5, -1.0, -2.0, 3.0]], np.float32)
    teacher = np.array([[1, 1, 1, 1, 0, -1, -1, -1]], np.float32)
    cases = [0.25, 0, 0, 16, 2.25, 0, 0, 16]
    both = losses.activation_boundary([student, student], [teacher, teacher], scale=1.0)
    np.testing.assert_allclose(both, 1.5 * np.sum(cases))  # the first of two layers counts half


def test_factor_transfer_of_the_paper():
    flat = [each.reshape(BATCH, -1) for each in (STUDENT[0], TEACHER[0])]
    student, teacher = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in flat)
    values = losses.factor_transfer(STUDENT[0], TEACHER[0], p1=None)
    np.testing.assert_allclose(values, np.abs(student - teacher).mean(1), rtol=1e-5)
    with pytest.raises(ValueError, match="one shape"):
        losses.factor_transfer(STUDENT[0][..., :3], TEACHER[0], p1=None)


def test_kdsvd_does_not_depend_on_the_signs_that_the_library_chooses(monkeypatch):
    expected = losses.kdsvd(STUDENT, TEACHER, k=2)
    decompose = singular_vectors._svd

    def turned(x):
        values, rows = decompose(x)
        return values, rows * RANDOM.choice([-1.0, 1.0], size=values.shape)[..., None]

    monkeypatch.setattr(singular_vectors, "_svd", turned)
    for _ in range(5):
        np.testing.assert_allclose(losses.kdsvd(STUDENT, TEACHER, k=2), expected, rtol=1e-5)


def test_kdsvd_needs_as_many_vectors_as_it_compares():
    with pytest.raises(ValueError, match="k=6"):
        losses.kdsvd(STUDENT, TEACHER, k=6)


@pytest.mark.parametrize("shape", [(7, 4), (4, 4), (3, 6)])
def test_derivative_of_singular_vectors(shape):
    """Where singular values differ it is that of jax's own decomposition."""

    def reference(x):
        return jnp.linalg.svd(x, full_matrices=False)[2][..., :2, :].swapaxes(-1, -2)

    with jax.enable_x64():
        x = RANDOM.normal(size=(3, *shape))
        weights = RANDOM.normal(size=(3, shape[1], 2))
        gradients = [
            jax.grad(lambda x, function=function: (weights * function(x)).sum())(x)
            for function in (lambda x: singular_vectors.right_singular_vectors(x, 2), reference)
        ]
        np.testing.assert_allclose(*gradients, rtol=1e-8, atol=1e-10)


def test_derivative_of_singular_vectors_is_finite_where_values_coincide():
    x = np.diag([2.0, 2.0, 1.0]).astype(np.float32)
    jacobian = jax.jacobian(lambda x: singular_vectors.right_singular_vectors(x, 3))(x)
    assert np.isfinite(jacobian).all()
    assert np.any(jacobian)
