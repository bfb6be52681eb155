"""k-NN against brute force in numpy, and its limits."""

import numpy as np
import pytest

from kdjax.errors import UserError
from kdjax.transfer.knn import (
    check_neighbors,
    knn_accuracy,
    knn_probabilities,
    nearest_neighbors,
)


def brute_force(queries, bank, labels, num_classes, k, temperature):
    """Wu et al. (2018), section 3.4, one query after another, in float64."""
    bank = bank / np.linalg.norm(bank, axis=1, keepdims=True)
    out = np.zeros((len(queries), num_classes))
    for row, query in enumerate(queries):
        similarity = bank @ (query / np.linalg.norm(query))
        for neighbor in np.argsort(-similarity)[:k]:
            out[row, labels[neighbor]] += np.exp(similarity[neighbor] / temperature)
    return out / out.sum(1, keepdims=True)


def test_knn_is_brute_force_whatever_the_chunks():
    generator = np.random.default_rng(0)
    queries, bank = generator.normal(size=(23, 8)), generator.normal(size=(40, 8))
    labels = generator.integers(0, 5, 40)
    expected = brute_force(queries, bank, labels, 5, 7, 0.1)
    for chunk in (6, 64):  # four chunks, the last one padded, and one
        settings = {"num_classes": 5, "k": 7, "temperature": 0.1, "chunk": chunk}
        result = knn_probabilities(queries, bank, labels, **settings)
        np.testing.assert_allclose(result, expected, atol=2e-5)
    truth = generator.integers(0, 5, 23)
    accuracy = knn_accuracy(queries, truth, bank, labels, **settings)
    np.testing.assert_allclose(accuracy, np.mean(expected.argmax(1) == truth), atol=1e-7)


def test_neighbors_are_those_of_the_largest_cosines():
    generator = np.random.default_rng(0)
    queries, bank = generator.normal(size=(5, 8)), generator.normal(size=(40, 8))
    cosines = queries @ bank.T
    cosines /= np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(bank, axis=1)
    similarities, indices = nearest_neighbors(queries, bank, 4)
    np.testing.assert_array_equal(indices, np.argsort(-cosines, axis=1)[:, :4])
    np.testing.assert_allclose(similarities, -np.sort(-cosines, axis=1)[:, :4], atol=1e-6)


def test_knn_is_finite_and_the_nearest_one_at_a_low_temperature():
    bank = np.eye(3)
    queries = np.array([[1.0, 0.9, 0.0], [0.0, 0.2, 0.1], [0.0, 0.0, 1e-3]])
    result = knn_probabilities(
        queries, bank, np.array([2, 0, 1]), num_classes=3, k=3, temperature=1e-4
    )
    np.testing.assert_allclose(result, np.eye(3)[[2, 0, 1]], atol=1e-6)


@pytest.mark.parametrize("k", [0, 11])
def test_more_neighbors_than_images_are_refused(k):
    with pytest.raises(UserError, match=rf"--neighbors={k}: must be 1\.\.10"):
        check_neighbors(k, 10, "--neighbors")
    check_neighbors(10, 10, "--neighbors")
