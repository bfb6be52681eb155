"""Scores of filters against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.pruning import criteria

KERNEL = np.random.default_rng(0).normal(size=(3, 3, 4, 12))
COLUMNS = KERNEL.reshape(-1, 12)
DISTANCES = {
    "l2": lambda a, b: np.linalg.norm(a - b),
    "l1": lambda a, b: np.abs(a - b).sum(),
    "cosine": lambda a, b: 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b),
}


SCORES = {name: jax.jit(criteria.geometric_median(name)) for name in DISTANCES}


def sums(columns, distance, neighbors):
    return [sum(DISTANCES[distance](a, columns[:, n]) for n in neighbors) for a in columns.T]


def test_norms():
    kernel = jnp.asarray(KERNEL, jnp.float32)
    np.testing.assert_allclose(criteria.l2(kernel), np.linalg.norm(COLUMNS, axis=0), rtol=1e-6)
    np.testing.assert_allclose(criteria.l1(kernel), np.abs(COLUMNS).sum(0), rtol=1e-6)


@pytest.mark.parametrize("distance", criteria.DISTANCES)
def test_geometric_median_sums_distances(distance):
    scores = SCORES[distance](KERNEL.astype(np.float32))
    np.testing.assert_allclose(scores, sums(COLUMNS, distance, range(12)), rtol=1e-5)


@pytest.mark.parametrize("distance", criteria.DISTANCES)
def test_zero_filters_are_nobodys_neighbors(distance):
    kernel = KERNEL.copy()
    kernel[..., [2, 5]] = 0
    scores = np.asarray(SCORES[distance](kernel.astype(np.float32)))
    others = [n for n in range(12) if n not in (2, 5)]
    expected = sums(COLUMNS[:, others], distance, range(10))
    np.testing.assert_allclose(scores[others], expected, rtol=1e-5)
    assert np.isfinite(scores).all()


def test_geometric_median_finds_what_others_can_replace():
    kernel = KERNEL.copy()
    kernel[..., 3] = kernel.mean(-1)  # the middle of all
    assert np.argmin(SCORES["l2"](kernel.astype(np.float32))) == 3


def test_equal_filters_have_no_distance_and_no_nan():
    kernel = np.ones(KERNEL.shape, np.float32)
    for scores in SCORES.values():
        np.testing.assert_allclose(scores(kernel), np.zeros(12), atol=1e-5)


@pytest.mark.parametrize("distance", criteria.DISTANCES)
def test_mixed_takes_norms_first_and_then_distances_among_the_rest(distance):
    mixed = jax.jit(criteria.mixed(0.25, distance))
    scores = np.asarray(mixed(KERNEL.astype(np.float32)))
    by_norm = np.argsort(np.linalg.norm(COLUMNS, axis=0))
    np.testing.assert_array_equal(np.argsort(scores)[:3], by_norm[:3])
    rest = np.sort(by_norm[3:])
    expected = sums(COLUMNS[:, rest], distance, range(9))
    np.testing.assert_allclose(scores[rest], expected, rtol=1e-5)


def test_random_order_is_the_layers_own_and_stays():
    order = criteria.random(0)
    first = order(jnp.zeros((3, 3, 4, 64)), "stage1/conv1")
    np.testing.assert_array_equal(first, order(jnp.ones((5, 64)), "stage1/conv1"))
    for other in (order(jnp.zeros((64, 64)), "conv2"), criteria.random(1)(first, "stage1/conv1")):
        assert not np.array_equal(first, other)


def test_ranks_break_ties_by_index():
    np.testing.assert_array_equal(criteria.ranks(jnp.array([2.0, 1, 2, 1, 0])), [3, 1, 4, 2, 0])


def test_half_precision_is_scored_in_float32():
    kernel = jnp.asarray(KERNEL, jnp.bfloat16)
    for criterion in (criteria.l1, criteria.l2, SCORES["l2"]):
        scores = criterion(kernel)
        assert scores.dtype == jnp.float32
        np.testing.assert_array_equal(scores, criterion(kernel.astype(jnp.float32)))


def test_distances_of_many_filters_need_no_cube():
    def largest(distance):
        jaxpr = jax.make_jaxpr(criteria.geometric_median(distance))(jnp.zeros((50, 40)))
        return max(variable.aval.size for equation in jaxpr.eqns for variable in equation.outvars)

    assert max(map(largest, criteria.DISTANCES)) <= 50 * 40


def test_errors():
    with pytest.raises(ValueError, match="distance='l3' is unknown; use one of l2, l1, cosine"):
        criteria.geometric_median("l3")
    with pytest.raises(ValueError, match=r"norm_rate=1.5 is not in \[0, 1\)"):
        criteria.mixed(1.5)
