"""BAKE: what is propagated among the images of a batch, and what is learned from it."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from jax.nn import softmax

from kdjax import losses

RANDOM = np.random.default_rng(0)
LOGITS = 2 * RANDOM.normal(size=(6, 5)).astype(np.float32)
EMBEDDING = RANDOM.normal(size=(6, 4)).astype(np.float32)
# Compiling is most of what these tests do.
bake_targets = jax.jit(losses.bake_targets, static_argnames="temperature")


def affinity(embedding) -> np.ndarray:
    """`[B, B]`, by the definition."""
    vectors = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    weights = np.exp(vectors @ vectors.T)
    np.fill_diagonal(weights, 0)
    return weights / weights.sum(axis=1, keepdims=True)


def test_targets_are_where_propagation_ends():
    """Own predictions and those of the others, again and again."""
    own = np.asarray(softmax(LOGITS / 4.0))
    targets = own
    for _ in range(60):
        targets = 0.7 * affinity(EMBEDDING) @ targets + 0.3 * own
    found = bake_targets(LOGITS, EMBEDDING, temperature=4.0, omega=0.7)
    np.testing.assert_allclose(found, targets, rtol=1e-4)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)


def test_targets_follow_their_images():
    order = np.array([3, 1, 5, 0, 2, 4])
    found = bake_targets(LOGITS, EMBEDDING, temperature=4.0, omega=0.5)
    moved = bake_targets(LOGITS[order], EMBEDDING[order], temperature=4.0, omega=0.5)
    np.testing.assert_allclose(moved, found[order], rtol=1e-5)


@pytest.mark.parametrize(("rows", "omega"), [(6, 0.0), (1, 0.5)])
def test_alone_an_image_keeps_its_own_prediction(rows, omega):
    found = bake_targets(LOGITS[:rows], EMBEDDING[:rows], temperature=4.0, omega=omega)
    np.testing.assert_allclose(found, softmax(LOGITS[:rows] / 4.0), rtol=1e-5)


def bake_sum(logits, embedding, form="paper"):
    return losses.bake(logits, embedding, temperature=4.0, omega=0.5, form=form).sum()


def test_bake_of_the_paper_is_zero_where_all_predictions_agree():
    equal = np.repeat(LOGITS[:1], 6, axis=0)
    value, gradient = jax.jit(jax.value_and_grad(bake_sum))(equal, EMBEDDING)
    np.testing.assert_allclose(value, 0, atol=1e-5)
    np.testing.assert_allclose(gradient, 0, atol=1e-5)
    library = jax.jit(functools.partial(bake_sum, form="library"))
    assert library(equal, EMBEDDING) > 0.1


def test_bake_of_the_paper_by_its_definition():
    targets = np.asarray(bake_targets(LOGITS, EMBEDDING, temperature=4.0, omega=0.5))
    own = np.asarray(softmax(LOGITS / 4.0))
    expected = 16 * np.sum(targets * np.log(targets / own), axis=-1)
    bake = jax.jit(functools.partial(losses.bake, temperature=4.0, omega=0.5))
    np.testing.assert_allclose(bake(LOGITS, EMBEDDING), expected, rtol=1e-4)
