"""Linear CKA against its definition by centered Gram matrices, and its invariances."""

import numpy as np
import pytest

from kdjax.transfer.cka import cka_matrix, linear_cka


def hsic(k, l, unbiased):  # noqa: E741
    """Gretton et al. (2005), or the unbiased estimate of Song et al. (2012), from `[N, N]`."""
    n = len(k)
    if not unbiased:
        centering = np.eye(n) - 1 / n
        return np.trace(k @ centering @ l @ centering) / (n - 1) ** 2
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    total = np.trace(k @ l) + k.sum() * l.sum() / ((n - 1) * (n - 2))
    return (total - 2 / (n - 2) * np.sum(k @ l)) / (n * (n - 3))


def from_gram_matrices(x, y, unbiased):
    k, l = x @ x.T, y @ y.T  # noqa: E741
    joint = hsic(k, l, unbiased)
    return joint / np.sqrt(hsic(k, k, unbiased) * hsic(l, l, unbiased))


@pytest.fixture(scope="module")
def features():
    """Two related representations of 30 images, and one that is far from the origin and large."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(30, 6))
    y = x @ generator.normal(size=(6, 9)) + generator.normal(size=(30, 9))
    return x, y, 1e3 * generator.normal(size=(30, 4)) + 1e4


@pytest.mark.parametrize("unbiased", [False, True])
def test_cka_is_its_definition(features, unbiased):
    expected = [[from_gram_matrices(x, y, unbiased) for y in features] for x in features]
    np.testing.assert_allclose(cka_matrix(features, unbiased=unbiased), expected, atol=2e-5)
    assert 0.3 < expected[0][1] < 0.95


@pytest.mark.parametrize("unbiased", [False, True])
def test_rotated_scaled_and_moved_features_are_the_same(features, unbiased):
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))
    moved = 40 * features[0] @ rotation - 7
    value = linear_cka(features[0], moved, unbiased=unbiased)
    np.testing.assert_allclose(value, 1, atol=1e-5)


def test_the_unbiased_estimate_is_near_zero_for_unrelated_features():
    generator = np.random.default_rng(2)
    x, y = generator.normal(size=(2, 40, 60))
    assert linear_cka(x, y) > 0.5
    assert abs(linear_cka(x, y, unbiased=True)) < 0.1


def test_constant_features_are_like_nothing():
    x, constant = np.eye(5), np.full((5, 2), 3.0)
    np.testing.assert_allclose(cka_matrix([x, constant]), [[1, 0], [0, 0]], atol=1e-6)


def test_features_of_other_images_are_refused():
    with pytest.raises(ValueError, match=r"not \(5, 5\) and \(4, 2\)"):
        linear_cka(np.eye(5), np.zeros((4, 2)))
    with pytest.raises(ValueError, match="needs 4 images, not 3"):
        linear_cka(np.eye(3), np.eye(3), unbiased=True)
