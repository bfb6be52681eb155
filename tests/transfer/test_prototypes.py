"""Episodes and the nearest prototype."""

import dataclasses

import jax
import numpy as np
import pytest

from kdjax.errors import UserError
from kdjax.transfer import prototypes
from kdjax.transfer.prototypes import Episodes, FewShot

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(6), [9, 8, 12, 8, 8, 10]))
MEMBERS = prototypes.members_of(LABELS, 6)
SIZE = {"ways": 4, "shots": 3, "queries": 5}


def test_members_are_the_images_of_every_class():
    np.testing.assert_array_equal(MEMBERS.counts, [9, 8, 12, 8, 8, 10])
    for label, (images, count) in enumerate(zip(*MEMBERS, strict=True)):
        np.testing.assert_array_equal(images[:count], np.flatnonzero(label == LABELS))


def test_episodes_have_different_classes_and_images_and_follow_the_key():
    episodes = prototypes.draw_episodes(jax.random.key(0), MEMBERS, episodes=70, **SIZE)
    support, query = map(np.asarray, episodes)
    assert support.shape == (70, 4, 3) and query.shape == (70, 4, 5)
    drawn = np.concatenate([support, query], axis=2)
    assert (LABELS[drawn] == LABELS[drawn[:, :, :1]]).all()
    for images in drawn:
        assert len(set(images.ravel())) == images.size
        assert len(set(LABELS[images[:, 0]])) == 4
    assert set(drawn.ravel()) == set(range(len(LABELS)))  # every image has its turn
    fewer = prototypes.draw_episodes(jax.random.key(0), MEMBERS, episodes=10, **SIZE)
    np.testing.assert_array_equal(fewer.support, support[:10])
    other = prototypes.draw_episodes(jax.random.key(1), MEMBERS, episodes=10, **SIZE)
    assert (np.asarray(other.support) != support[:10]).any()


def by_hand(features, support, query, distance):
    """The accuracy of an episode, one query after another."""
    if distance == "cosine":
        features = features / np.linalg.norm(features, axis=1, keepdims=True)
    means = features[support].mean(1)
    right = 0
    for way, images in enumerate(query):
        for image in images:
            gaps = np.linalg.norm(features[image] - means, axis=1)
            if distance == "cosine":
                gaps = -means @ features[image] / np.linalg.norm(means, axis=1)
            right += gaps.argmin() == way
    return right / query.size


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_accuracies_are_those_of_the_nearest_prototype(distance):
    generator = np.random.default_rng(1)
    features = generator.normal(size=(6, 7))[LABELS] + generator.normal(size=(len(LABELS), 7))
    features = features * generator.uniform(0.5, 3, (len(LABELS), 1)) + 2
    episodes = prototypes.draw_episodes(jax.random.key(0), MEMBERS, episodes=70, **SIZE)
    accuracies = prototypes.prototype_accuracies(features, episodes, distance=distance)
    expected = [
        by_hand(features, *map(np.asarray, each), distance) for each in zip(*episodes, strict=True)
    ]
    np.testing.assert_allclose(accuracies, expected, atol=1e-6)
    assert 0.3 < np.mean(expected) < 0.99
    separable = 1e3 + np.eye(6)[LABELS]
    if distance == "cosine":
        separable -= 1e3
    assert (prototypes.prototype_accuracies(separable, episodes, distance=distance) == 1).all()


def test_the_interval_is_two_standard_errors():
    mean, half = prototypes.mean_and_interval(np.array([0.5, 0.7, 0.6, 0.6]))
    np.testing.assert_allclose((mean, half), (0.6, 1.96 * np.sqrt(0.02 / 3) / 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ways": 7}, r"few_shot\.ways=7: the data has 6 classes"),
        ({"shots": 4}, r"shots=4 and queries=5 need 9 images of every class, class 'b' has 8"),
    ],
)
def test_episodes_that_the_data_cannot_fill_are_refused(changes, message):
    settings = FewShot(**SIZE)
    prototypes.check_episodes(MEMBERS, settings, "abcdef")
    with pytest.raises(UserError, match=message):
        prototypes.check_episodes(MEMBERS, dataclasses.replace(settings, **changes), "abcdef")


def test_a_query_is_no_support():
    """The only labeled image of each class decides, and it is not the query itself."""
    features = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    episode = Episodes(np.array([[[0], [1]]]), np.array([[[2], [3]]]))
    np.testing.assert_array_equal(prototypes.prototype_accuracies(features, episode), [0])
