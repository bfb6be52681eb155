"""Properties of mutual contrast."""

from __future__ import annotations

import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses

RANDOM = np.random.default_rng(0)
LABELS = np.array([2, 0, 1, 1, 2, 0, 0, 1, 2])  # three images per class
TERMS = losses.MutualContrast._fields


def unit(shape: tuple[int, ...]) -> np.ndarray:
    vectors = RANDOM.normal(size=shape)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


EMBEDDINGS = unit((3, 9, 4))  # [networks, B, D]
contrast = functools.partial(losses.mutual_contrast, temperature=0.2, kd_temperature=3.0)


def assert_terms_close(actual, expected, rtol=1e-5, atol=1e-6):
    for term in TERMS:
        np.testing.assert_allclose(
            getattr(actual, term), getattr(expected, term), rtol, atol, err_msg=term
        )


def reference(embeddings, labels, temperature, kd_temperature) -> losses.MutualContrast:
    """The equations of the paper, one exponential at a time."""
    networks, batch = range(len(embeddings)), range(len(labels))

    def similarity(a, b, i, k):
        return float(embeddings[a][i] @ embeddings[b][k]) / temperature

    def nll(a, b, i):
        positives = [p for p in batch if p != i and labels[p] == labels[i]]
        normalizer = sum(np.exp(similarity(a, b, i, k)) for k in batch if k != i)
        terms = [-np.log(np.exp(similarity(a, b, i, p)) / normalizer) for p in positives]
        return sum(terms) / len(positives)

    def distribution(a, b, i):
        exps = [np.exp(similarity(a, b, i, k) / kd_temperature) for k in batch]
        return [each / sum(exps) for each in exps]

    def kl(target, prediction):
        terms = [p * np.log(p / q) for p, q in zip(target, prediction, strict=True)]
        return kd_temperature**2 * sum(terms)

    result = losses.MutualContrast(*np.zeros((4, len(labels))))
    for i in batch:
        for a in networks:
            result.vcl[i] += nll(a, a, i)
            for b in networks:
                if a != b:
                    result.icl[i] += nll(a, b, i)
                    result.soft_vcl[i] += kl(distribution(b, b, i), distribution(a, a, i))
                    result.soft_icl[i] += kl(distribution(b, a, i), distribution(a, b, i))
    return result


def test_three_networks_and_three_images_per_class_by_the_equations():
    with jax.enable_x64(True):
        embeddings = EMBEDDINGS.astype(np.float64)
        actual = contrast(list(embeddings), LABELS)
        assert_terms_close(actual, reference(embeddings, LABELS, 0.2, 3.0), rtol=1e-11)


@pytest.mark.parametrize("networks", [1, 2, 3])
def test_jit_changes_nothing(networks):
    embeddings = list(EMBEDDINGS[:networks])
    plain = contrast(embeddings, LABELS)
    assert all(term.shape == (9,) and term.dtype == jnp.float32 for term in plain)
    assert_terms_close(jax.jit(contrast)(embeddings, LABELS), plain)


def test_one_network_has_vcl_alone():
    terms = contrast([EMBEDDINGS[0]], LABELS)
    assert terms.vcl.all()
    assert not any(term.any() for term in (terms.icl, terms.soft_vcl, terms.soft_icl))


def test_half_precision_is_computed_in_float32():
    rounded = [jnp.asarray(each, jnp.bfloat16) for each in EMBEDDINGS]
    terms = contrast(rounded, LABELS)
    assert all(term.dtype == jnp.float32 for term in terms)
    assert_terms_close(terms, contrast([each.astype(jnp.float32) for each in rounded], LABELS))
    assert_terms_close(terms, contrast(list(EMBEDDINGS), LABELS), rtol=0.05, atol=0.05)


def test_permuted_batch_gives_permuted_values():
    order = RANDOM.permutation(9)
    permuted = contrast(list(EMBEDDINGS[:, order]), LABELS[order])
    expected = contrast(list(EMBEDDINGS), LABELS)
    assert_terms_close(permuted, jax.tree.map(lambda term: term[order], expected))


def test_permuted_networks_give_equal_values():
    permuted = contrast(list(EMBEDDINGS[[2, 0, 1]]), LABELS)
    assert_terms_close(permuted, contrast(list(EMBEDDINGS), LABELS))


def test_soft_terms_vanish_for_equal_networks():
    terms = contrast([EMBEDDINGS[0]] * 2, LABELS)
    np.testing.assert_allclose(terms.soft_vcl, 0.0, atol=1e-6)
    np.testing.assert_allclose(terms.soft_icl, 0.0, atol=1e-6)


def summed(embeddings, labels, **options):
    return sum(term.sum() for term in contrast(embeddings, labels, **options))


@pytest.mark.parametrize(
    "embeddings",
    [EMBEDDINGS, np.stack([EMBEDDINGS[0]] * 3), np.repeat(EMBEDDINGS[:, :1], 9, 1)],
    ids=["random", "equal networks", "equal images"],
)
def test_low_temperature_gives_finite_values_and_gradients(embeddings):
    value, gradients = jax.value_and_grad(summed)(list(embeddings), LABELS, temperature=0.01)
    assert np.isfinite(value)
    assert np.isfinite(gradients).all()


@pytest.mark.parametrize("labels", [np.arange(9), [0, 0, *range(1, 8)], [0]], ids=str)
def test_an_anchor_without_a_positive_contributes_zero(labels):
    labels = np.asarray(labels)
    alone = np.array([np.sum(labels == label) == 1 for label in labels])
    embeddings = list(EMBEDDINGS[:2, : len(labels)])
    terms = contrast(embeddings, labels)
    for term in (terms.vcl, terms.icl):
        np.testing.assert_array_equal(np.asarray(term) == 0, alone)
    value, gradients = jax.value_and_grad(summed)(embeddings, labels)
    assert np.isfinite(value)
    assert np.isfinite(gradients).all()


def equations(jaxpr):
    """All equations of a jaxpr, those of its sub-programs included."""
    for equation in jaxpr.eqns:
        yield equation
        for sub in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda x: isinstance(x, jax.extend.core.ClosedJaxpr | jax.extend.core.Jaxpr),
        ):
            if isinstance(sub, jax.extend.core.ClosedJaxpr):
                sub = sub.jaxpr
            if isinstance(sub, jax.extend.core.Jaxpr):
                yield from equations(sub)


@pytest.mark.parametrize("networks", [1, 2, 3, 4])
def test_one_matrix_product_per_unordered_pair(networks):
    embeddings = [jnp.zeros((8, 16))] * networks
    program = jax.make_jaxpr(contrast)(embeddings, jnp.zeros(8, int)).jaxpr
    products = [each for each in equations(program) if each.primitive.name == "dot_general"]
    assert len(products) == networks + networks * (networks - 1) // 2


def test_no_array_has_more_than_two_dimensions():
    """Not `[B, B, D]`, whose size would be the batch's limit; nor in the backward pass."""
    program = jax.make_jaxpr(jax.value_and_grad(summed))([jnp.zeros((8, 16))] * 3, LABELS[:8])
    shapes = {each.aval.shape for eq in equations(program.jaxpr) for each in eq.outvars}
    assert (8, 8) in shapes
    assert max(len(shape) for shape in shapes) == 2
