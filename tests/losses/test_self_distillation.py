"""CS-KD, DDGSD, BAKE and PS-KD: official numbers, what reaches whom, and several devices."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import softmax

from kdjax import losses
from tests import golden

RANDOM = np.random.default_rng(0)
LOGITS = 2 * RANDOM.normal(size=(6, 5)).astype(np.float32)
EMBEDDING = RANDOM.normal(size=(6, 4)).astype(np.float32)
LABELS = np.array([0, 1, 2, 3, 4, 0])
# Compiling is most of what these tests do.


def check(function, arrays, names, dtype) -> None:
    """Compares the means of the parts of `function(*inputs)`, their sum and its gradients.

    `function` returns (classification [B], the rest [B]).
    """

    def total(inputs):
        parts = [part.mean() for part in function(*inputs)]
        return sum(parts), parts

    inputs = [arrays[f"in_{name}"].astype(dtype) for name in names]
    (loss, parts), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(inputs)
    for value, name in zip((loss, *parts), ("loss", "loss_cls", "loss_div"), strict=True):
        golden.compare(value, arrays[f"out_{name}"], dtype)
    for name, gradient in zip(names, gradients, strict=True):
        golden.compare(gradient, arrays[f"grad_{name}"], dtype)


@pytest.mark.parametrize("name", golden.loss_names("selfkd_cs_kd_"))
def test_cs_kd(name, dtype):
    hyper, arrays = golden.loss(name)
    half = len(arrays["in_targets"]) // 2

    def terms(logits):
        labels, partners = arrays["in_targets"][:half], logits[half:, None]
        return losses.cs_kd(logits[:half], partners, labels, temperature=hyper["T"])

    check(terms, arrays, ["logits"], dtype)


@pytest.mark.parametrize("name", golden.loss_names("selfkd_ddgsd_"))
def test_ddgsd(name, dtype):
    hyper, arrays = golden.loss(name)

    def pairs(x):
        return jnp.stack(jnp.split(x, 2), axis=1)

    def terms(logits, features):
        found = losses.ddgsd(
            pairs(logits),
            pairs(features),
            arrays["in_targets"],
            temperature=hyper["T"],
            form="library",
        )
        return found.cross_entropy, found.distillation + 5e-4 * found.discrepancy

    check(terms, arrays, ["logits", "features"], dtype)


@pytest.mark.parametrize("name", golden.loss_names("selfkd_bake_"))
def test_bake(name, dtype):
    hyper, arrays = golden.loss(name)
    settings = {"temperature": hyper["T"], "omega": hyper["omega"]}

    def terms(logits, features):
        distillation = losses.bake(logits, features, form="library", **settings)
        return losses.cross_entropy(logits, arrays["in_targets"]), distillation

    check(terms, arrays, ["logits", "features"], dtype)
    inputs = [arrays[f"in_{name}"].astype(dtype) for name in ("logits", "features")]
    targets = jax.jit(functools.partial(losses.bake_targets, **settings))(*inputs)
    golden.compare(targets, arrays["out_kd_targets"], dtype)


# CS-KD


def test_cs_kd_learns_from_the_mean_of_the_divergences_of_partners():
    partners = RANDOM.normal(size=(6, 3, 5)).astype(np.float32)

    def distillation(logits, partners):
        return losses.cs_kd(logits, partners, LABELS, temperature=4.0).distillation.sum()

    run = jax.jit(jax.value_and_grad(distillation, (0, 1)))
    value, (gradient, of_partners) = run(LOGITS, partners)
    kd = jax.jit(losses.kd, static_argnames="temperature")
    each = [kd(LOGITS, partners[:, k], temperature=4.0).sum() for k in range(3)]
    np.testing.assert_allclose(value, np.mean(each), rtol=1e-5)
    assert np.abs(gradient).max() > 0
    np.testing.assert_array_equal(of_partners, 0)
    same = np.repeat(LOGITS[:, None], 3, axis=1)
    np.testing.assert_allclose(run(LOGITS, same)[0], 0, atol=1e-6)


# DDGSD

VIEWS = LOGITS.reshape(3, 2, 5)
FEATURES = EMBEDDING.reshape(3, 2, 4)


@functools.partial(jax.jit, static_argnames="form")
def views_ddgsd(logits, features, labels, form="paper"):
    return losses.ddgsd(logits, features, labels, temperature=4.0, form=form)


def test_ddgsd_of_the_paper_compares_mean_features_channel_by_channel():
    found = views_ddgsd(VIEWS, FEATURES, LABELS[:3])
    expected = np.sum((FEATURES[:, 0].mean(0) - FEATURES[:, 1].mean(0)) ** 2)
    np.testing.assert_allclose(found.discrepancy, np.full(3, expected), rtol=1e-5)
    both = [losses.cross_entropy(VIEWS[:, k], LABELS[:3]) for k in (0, 1)]
    np.testing.assert_allclose(found.cross_entropy, sum(both), rtol=1e-5)


@pytest.mark.parametrize("form", ["paper", "library"])
def test_views_of_ddgsd_may_be_exchanged_and_are_compared(form):
    found = views_ddgsd(VIEWS, FEATURES, LABELS[:3], form=form)
    other = views_ddgsd(VIEWS[:, ::-1], FEATURES[:, ::-1], LABELS[:3], form=form)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4), found, other)
    assert found.distillation.min() > 0 and found.discrepancy.min() > 0
    same = views_ddgsd(VIEWS[:, [0, 0]], FEATURES[:, [0, 0]], LABELS[:3], form=form)
    np.testing.assert_allclose(same.distillation, 0, atol=1e-6)
    np.testing.assert_allclose(same.discrepancy, 0, atol=1e-6)


# PS-KD


def test_ps_kd_mixes_labels_and_past():
    past = np.asarray(softmax(RANDOM.normal(size=(6, 5)))).astype(np.float32)

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=1)
    def total(logits, past, alpha):
        return losses.ps_kd(logits, LABELS, past, alpha=alpha).sum()

    hard = losses.cross_entropy(LOGITS, LABELS).sum()
    soft = losses.cross_entropy(LOGITS, past).sum()
    for alpha in (0.0, 0.3, 1.0):
        value, of_past = total(LOGITS, past, alpha)
        np.testing.assert_allclose(value, (1 - alpha) * hard + alpha * soft, rtol=1e-5)
        np.testing.assert_array_equal(of_past, 0)


# All


@pytest.mark.parametrize("form", ["paper", pytest.param("library", marks=pytest.mark.slow)])
def test_large_logits(form):
    huge = 1e4 * np.eye(6, 5, dtype=np.float32)

    def total(logits, embedding):
        views = logits.reshape(3, 2, 5), embedding.reshape(3, 2, 4)
        terms = [
            *losses.cs_kd(logits, logits[::-1, None], LABELS, temperature=1.0),
            losses.bake(logits, embedding, temperature=1.0, omega=0.5, form=form),
            losses.ps_kd(logits, LABELS, softmax(logits), alpha=0.5),
            *losses.ddgsd(*views, LABELS[:3], temperature=1.0, form=form),
        ]
        return sum(each.sum() for each in terms)

    value, gradients = jax.jit(jax.value_and_grad(total, (0, 1)))(huge, EMBEDDING)
    assert np.isfinite(value)
    assert all(np.isfinite(each).all() for each in gradients)


def test_unknown_forms_are_refused():
    message = "form='papers' is unknown; use 'paper' or 'library'"
    with pytest.raises(ValueError, match=message):
        views_ddgsd(VIEWS, FEATURES, LABELS[:3], form="papers")
    with pytest.raises(ValueError, match=message):
        losses.bake(LOGITS, EMBEDDING, temperature=4.0, omega=0.5, form="papers")


WEIGHTS = list(RANDOM.normal(size=(2, 4, 5)).astype(np.float32))


def terms_of_batch(weights, inputs, axis_name=None):
    """Means of the losses that compare images, of images `[B, 2, D]` seen through two layers."""
    embeddings, logits = inputs @ weights[0], inputs @ weights[1]
    labels = jnp.zeros(len(inputs), jnp.int32)
    found = [
        losses.bake(
            logits.reshape(-1, 5),
            embeddings.reshape(-1, 5),
            temperature=2.0,
            omega=0.5,
            axis_name=axis_name,
        ).mean()
    ]
    for form in ("paper", "library"):
        views = losses.ddgsd(
            logits, embeddings, labels, temperature=2.0, form=form, axis_name=axis_name
        )
        found.append(views.discrepancy.mean())
    return jnp.stack(found)


def test_several_devices_compare_all_images():
    inputs = RANDOM.normal(size=(6, 2, 4)).astype(np.float32)
    both = jax.jit(lambda x: (terms_of_batch(WEIGHTS, x), jax.jacrev(terms_of_batch)(WEIGHTS, x)))

    @jax.jit
    @functools.partial(jax.vmap, axis_name="batch")
    def on_device(x):
        function = functools.partial(terms_of_batch, axis_name="batch")
        found = function(WEIGHTS, x), jax.jacrev(function)(WEIGHTS, x)
        return jax.lax.pmean(found, "batch")

    found = jax.tree.map(lambda x: x[0], on_device(inputs.reshape(3, 2, 2, 4)))
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(compare, found, both(inputs))
