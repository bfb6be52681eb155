"""MCL with a memory bank: the official code's numbers, and properties."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from kdjax import losses
from kdjax.losses import memory_bank
from tests import golden

RANDOM = np.random.default_rng(0)
IMAGES, BATCH, FEATURES, COLUMNS = 12, 4, 5, 7
TERMS = losses.MutualContrast._fields


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


EMBEDDINGS = list(unit(RANDOM.normal(size=(2, BATCH, FEATURES))))
BANKS = list(unit(RANDOM.normal(size=(2, IMAGES, FEATURES))))
INDEX = np.array([7, 2, 11, 4])
CONTRAST = np.concatenate([INDEX[:, None], RANDOM.integers(0, IMAGES, (BATCH, COLUMNS - 1))], 1)
contrast = functools.partial(
    losses.memory_contrast, positives=1, temperature=0.1, kd_temperature=3.0
)


@pytest.mark.parametrize("name", golden.loss_names("mcl_contrast_memory_"))
def test_memory_contrast(name, dtype):
    hyper, arrays = golden.loss(name)
    embeddings = golden.numbered(arrays, "in_emb", dtype)
    banks = golden.numbered(arrays, "in_memory", dtype)
    index = np.concatenate([arrays["in_pos_idx"], arrays["in_neg_idx"]], axis=1)

    def terms(embeddings):
        values = losses.memory_contrast(
            embeddings,
            banks,
            index,
            positives=hyper["pos_k"],
            temperature=hyper["tau"],
            kd_temperature=hyper["kd_T"],
        )
        values = jax.tree.map(jnp.mean, values)
        return values, values

    gradients, values = jax.jit(jax.jacrev(terms, has_aux=True))(embeddings)
    for term in TERMS:
        golden.compare(getattr(values, term), arrays[f"out_{term}"], dtype)
        for number, gradient in enumerate(getattr(gradients, term)):
            golden.compare(gradient, arrays[f"grad_{term}_emb{number}"], dtype)
    for number, (bank, embedding) in enumerate(zip(banks, embeddings, strict=True)):
        after = losses.remember_embeddings(
            bank, arrays["in_pos_idx"][:, 0], embedding, momentum=hyper["nce_m"]
        )
        golden.compare(after, arrays[f"out_memory{number}"], dtype)


def values_and_gradients():
    def total(embeddings):
        values = contrast(embeddings, BANKS, CONTRAST)
        return sum(term.sum() for term in values), values

    return jax.jit(jax.value_and_grad(total, has_aux=True))(EMBEDDINGS)


def test_rows_gathered_for_some_anchors_at_a_time_change_nothing(monkeypatch):
    whole = values_and_gradients()
    monkeypatch.setattr(memory_bank, "_GATHERED", 3 * COLUMNS * FEATURES)  # three anchors, then one
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(compare, values_and_gradients(), whole)


def test_no_array_holds_the_rows_of_all_anchors(monkeypatch):
    monkeypatch.setattr(memory_bank, "_GATHERED", COLUMNS * FEATURES)

    def total(embeddings):
        return sum(term.sum() for term in contrast(embeddings, BANKS, CONTRAST))

    def sizes(jaxpr):
        for equation in jaxpr.eqns:
            yield from (variable.aval.size for variable in equation.outvars)
            for inner in core.jaxprs_in_params(equation.params):
                yield from sizes(inner)

    largest = max(sizes(jax.make_jaxpr(jax.grad(total))(EMBEDDINGS).jaxpr))
    assert COLUMNS * FEATURES <= largest < BATCH * COLUMNS * FEATURES


def test_one_network_has_no_terms_across():
    values = contrast(EMBEDDINGS[:1], BANKS[:1], CONTRAST)
    assert values.vcl.shape == (BATCH,) and (values.vcl > 0).all()
    assert not any(np.any(term) for term in values[1:])


def test_equal_networks_have_no_soft_terms():
    values = contrast(EMBEDDINGS[:1] * 2, BANKS[:1] * 2, CONTRAST)
    np.testing.assert_allclose(values.soft_vcl, 0, atol=1e-5)
    np.testing.assert_allclose(values.soft_icl, 0, atol=1e-5)


def test_only_the_batchs_rows_move_and_stay_unit_vectors():
    after = losses.remember_embeddings(BANKS[0], INDEX, EMBEDDINGS[0], momentum=0.5)
    others = np.setdiff1d(np.arange(IMAGES), INDEX)
    np.testing.assert_array_equal(after[others], BANKS[0][others])
    np.testing.assert_allclose(after[INDEX], unit(BANKS[0][INDEX] + EMBEDDINGS[0]), rtol=1e-5)


@pytest.mark.parametrize("devices", [1, 2])
def test_an_image_that_comes_twice_moves_its_row_once(devices):
    twice = np.array([7, 2, 7, 7])
    remember = functools.partial(losses.remember_embeddings, momentum=0.5)
    once = remember(BANKS[0], twice[:2], EMBEDDINGS[0][:2])
    mapped = jax.vmap(
        functools.partial(remember, axis_name="batch"), in_axes=(None, 0, 0), axis_name="batch"
    )
    split = (each.reshape(devices, -1, *each.shape[1:]) for each in (twice, EMBEDDINGS[0]))
    for bank in mapped(BANKS[0], *split):
        np.testing.assert_allclose(bank, once, rtol=1e-6)


@pytest.mark.parametrize(
    ("embeddings", "banks", "index", "positives"),
    [
        ([], [], CONTRAST, 1),
        (EMBEDDINGS, BANKS[:1], CONTRAST, 1),
        ([EMBEDDINGS[0], EMBEDDINGS[1][:2]], BANKS, CONTRAST, 1),
        (EMBEDDINGS, [bank[:, :3] for bank in BANKS], CONTRAST, 1),
        (EMBEDDINGS, BANKS, CONTRAST[:2], 1),
        (EMBEDDINGS, BANKS, INDEX, 1),
        (EMBEDDINGS, BANKS, CONTRAST, 0),
        (EMBEDDINGS, BANKS, CONTRAST, COLUMNS - 1),
    ],
)
def test_shapes_that_do_not_go_together(embeddings, banks, index, positives):
    with pytest.raises(ValueError, match=r"bank|needs|positives"):
        contrast(embeddings, banks, index, positives=positives)
