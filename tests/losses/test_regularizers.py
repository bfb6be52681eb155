"""Label smoothing, focal loss, virtual softmax, maximum entropy and Tf-KD: numbers, properties."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import log_softmax, softmax

from kdjax import losses
from tests import golden

RANDOM = np.random.default_rng(0)
LOGITS = 2 * RANDOM.normal(size=(4, 6)).astype(np.float32)
LABELS = np.array([0, 5, 2, 2])
# Compiling is most of what these tests do.


def check(function, arrays, names, dtype) -> None:
    """Compares the mean of `function(*inputs)` and its gradient by each of the named inputs."""
    inputs = [arrays[f"in_{name}"].astype(dtype) for name in names]
    run = jax.jit(jax.value_and_grad(lambda inputs: function(*inputs).mean()))
    value, gradients = run(inputs)
    golden.compare(value, arrays["out_loss"], dtype)
    for name, gradient in zip(names, gradients, strict=True):
        golden.compare(gradient, arrays[f"grad_{name}"], dtype)


@pytest.mark.parametrize("name", golden.loss_names("selfkd_label_smooth_"))
def test_label_smoothing(name, dtype):
    hyper, arrays = golden.loss(name)

    def library(logits):
        return losses.label_smoothing(
            logits, arrays["in_targets"], smoothing=hyper["epsilon"], form="library"
        )

    check(library, arrays, ["logits"], dtype)


@pytest.mark.parametrize("name", golden.loss_names("selfkd_focal_"))
def test_focal(name, dtype):
    hyper, arrays = golden.loss(name)
    gamma = hyper["gamma"]
    focal = lambda logits: losses.focal(logits, arrays["in_targets"], gamma=gamma)  # noqa: E731
    check(focal, arrays, ["logits"], dtype)


@pytest.mark.parametrize("name", golden.loss_names("selfkd_virtual_softmax_"))
def test_virtual_softmax(name, dtype):
    _, arrays = golden.loss(name)
    labels = arrays["in_targets"]

    def classified(weights, bias, embedding):
        return embedding @ weights.T + bias, embedding, weights.T, labels

    def library(*inputs):
        return losses.virtual_softmax(*classified(*inputs))

    check(library, arrays, ["W", "b", "embedding"], dtype)
    inputs = [arrays[f"in_{name}"].astype(dtype) for name in ("W", "b", "embedding")]
    found = jax.jit(lambda *inputs: losses.virtual_logits(*classified(*inputs)))(*inputs)
    golden.compare(found, arrays["out_logits"], dtype)


@pytest.mark.parametrize("name", golden.loss_names("selfkd_max_entropy_"))
def test_maximum_entropy(name, dtype):
    hyper, arrays = golden.loss(name)

    def library(logits):
        penalty = losses.confidence_penalty(logits, form="library")
        return losses.cross_entropy(logits, arrays["in_targets"]) + hyper["weight"] * penalty

    check(library, arrays, ["logits"], dtype)


@pytest.mark.parametrize("name", golden.loss_names("selfkd_tf_kd_reg_"))
def test_tf_kd(name, dtype):
    hyper, arrays = golden.loss(name)

    def library(logits):
        settings = {"smoothing": hyper["epsilon"], "temperature": hyper["T"], "form": "library"}
        return losses.tf_kd(logits, arrays["in_targets"], **settings)

    check(library, arrays, ["logits"], dtype)


def targets(true: float, other: float) -> np.ndarray:
    """`[B, N]` with one value for the class of `LABELS` and one for the others."""
    return np.where(np.arange(6) == LABELS[:, None], true, other)


def test_label_smoothing_of_the_paper_gives_to_all_classes():
    actual = losses.label_smoothing(LOGITS, LABELS, smoothing=0.3)
    expected = -np.sum(targets(0.7 + 0.05, 0.05) * log_softmax(LOGITS), axis=-1)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize("form", ["paper", "library"])
def test_nothing_smoothed_is_cross_entropy(form):
    actual = losses.label_smoothing(LOGITS, LABELS, smoothing=0.0, form=form)
    np.testing.assert_allclose(actual, losses.cross_entropy(LOGITS, LABELS), rtol=1e-5)


def test_focal_loss_weighs_down_what_is_easy():
    plain = losses.cross_entropy(LOGITS, LABELS)
    np.testing.assert_allclose(losses.focal(LOGITS, LABELS, gamma=0.0), plain, rtol=1e-5)
    probability = np.exp(-plain)
    actual = losses.focal(LOGITS, LABELS, gamma=3.0)
    np.testing.assert_allclose(actual, (1 - probability) ** 3 * plain, rtol=1e-4)


def test_the_virtual_class_is_as_far_as_the_true_one_can_be():
    """An embedding along the true class's weights makes the two logits equal."""
    embedding = RANDOM.normal(size=(4, 3)).astype(np.float32)
    kernel = RANDOM.normal(size=(3, 6)).astype(np.float32)
    embedding[0] = 2 * kernel[:, LABELS[0]]
    found = losses.virtual_logits(embedding @ kernel, embedding, kernel, LABELS)
    true, virtual = found[np.arange(4), LABELS], found[:, 6]
    np.testing.assert_allclose(true[0], virtual[0], rtol=1e-5)
    assert (true[1:] < virtual[1:]).all()


def test_an_embedding_of_zeros_has_a_finite_gradient():
    kernel = np.eye(3, 6, dtype=np.float32)  # the weights of classes 3, 4 and 5 are zeros too

    def total(embedding, kernel):
        return losses.virtual_softmax(embedding @ kernel, embedding, kernel, LABELS).sum()

    gradients = jax.jit(jax.grad(total, (0, 1)))(np.zeros((4, 3), np.float32), kernel)
    assert all(np.isfinite(each).all() for each in gradients)


def test_confidence_penalty():
    equal, sure = np.zeros((2, 6), np.float32), 1e4 * np.eye(2, 6, dtype=np.float32)
    np.testing.assert_allclose(losses.confidence_penalty(equal), -np.log(6), rtol=1e-6)
    np.testing.assert_array_equal(losses.confidence_penalty(sure), 0)
    paper = losses.confidence_penalty(LOGITS)
    entropy = -np.sum(softmax(LOGITS) * log_softmax(LOGITS), axis=-1)
    np.testing.assert_allclose(paper, -entropy, rtol=1e-5)
    library = losses.confidence_penalty(LOGITS, form="library")
    np.testing.assert_allclose(6 * library, paper, rtol=1e-5)


def test_tf_kd_of_the_paper_is_the_divergence_from_a_softened_teacher():
    teacher = targets(0.9, 0.02)
    softened = softmax(teacher / 5)
    divergence = np.sum(softened * (np.log(softened) - log_softmax(LOGITS / 5)), axis=-1)
    actual = losses.tf_kd(LOGITS, LABELS, smoothing=0.1, temperature=5.0)
    np.testing.assert_allclose(actual, 25 * divergence, rtol=1e-4)

    same = (teacher + 3.0).astype(np.float32)
    run = jax.jit(
        jax.value_and_grad(
            lambda logits: losses.tf_kd(logits, LABELS, smoothing=0.1, temperature=5.0).sum()
        )
    )
    for each in run(same):
        np.testing.assert_allclose(each, 0, atol=1e-5)


def smooth(logits, form="paper"):
    return losses.label_smoothing(logits, LABELS, smoothing=0.1, form=form)


def penalize(logits, form="paper"):
    return losses.confidence_penalty(logits, form=form)


def teach(logits, form="paper"):
    return losses.tf_kd(logits, LABELS, smoothing=0.1, temperature=20.0, form=form)


FORMS = {
    f"{function.__name__} {form}": functools.partial(function, form=form)
    for function in (smooth, penalize, teach)
    for form in ("paper", "library")
}
FOCAL = {
    f"focal {gamma}": functools.partial(losses.focal, labels=LABELS, gamma=gamma)
    for gamma in (0.0, 0.5, 2.0)
}


@pytest.mark.parametrize("name", [*FORMS, *FOCAL])
def test_large_logits_and_half_precision(name):
    function = (FORMS | FOCAL)[name]
    huge, half = jnp.asarray(1e4 * np.eye(4, 6), jnp.float32), jnp.asarray(LOGITS, jnp.bfloat16)

    @jax.jit
    def run(huge, half):
        return jax.value_and_grad(lambda x: function(x).sum())(huge), function(half)

    (value, gradient), of_half = run(huge, half)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    assert of_half.shape == (4,) and of_half.dtype == jnp.float32


@pytest.mark.parametrize("function", [smooth, penalize, teach])
def test_unknown_forms_are_refused(function):
    with pytest.raises(ValueError, match="form='papers' is unknown; use 'paper' or 'library'"):
        function(LOGITS, form="papers")
