"""What RandAugment, TrivialAugment, AutoAugment and AugMix draw, and how often."""

import collections
import functools
import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.data import policies
from kdjax.data.policies.auto_augment import SUB_POLICIES
from tests.data.test_policies import SIDE, keys
from tests.data.test_policies_operations import pictures, pillow

AUGMIX = importlib.import_module("kdjax.data.policies.augmix")
GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
BLENDS = ("Brightness", "Color", "Contrast", "Sharpness")
SIGNED = {*GEOMETRIC, *BLENDS}
FOURTEEN = (*SIGNED, "Identity", "Posterize", "Solarize", "AutoContrast", "Equalize")


def image():
    return pictures(SIDE, SIDE)["smooth"]


def reference(picture, name, magnitude):
    """Pillow's, but for AutoContrast, whose rounding errors are another test's."""
    if name != "AutoContrast":
        return pillow(picture, name, magnitude)
    levels = picture.astype(int)
    low, high = levels.min((0, 1)), levels.max((0, 1))
    return np.where(high > low, 255 * (levels - low) // np.maximum(high - low, 1), levels).astype(
        np.uint8
    )


def outcomes(function, count, **settings):
    """How often `function` makes what of the same image: {bytes: times}."""
    images = jnp.broadcast_to(jnp.asarray(image()), (count, SIDE, SIDE, 3))
    made = np.asarray(jax.jit(functools.partial(function, **settings))(keys(count), images))
    return collections.Counter(each.tobytes() for each in made)


def signs(name, magnitude):
    """Operations with their probabilities."""
    if name in SIGNED:
        return [(0.5, (name, magnitude)), (0.5, (name, -magnitude))]
    return [(1.0, (name, magnitude))]


@functools.cache
def after(*steps):
    """The image after these (name, magnitude)."""
    return reference(after(*steps[:-1]), *steps[-1]) if steps else image()


def check_frequencies(found, expected):
    """Chi-squared over outcomes; expected: {bytes: probability}."""
    count = sum(found.values())
    assert not found.keys() - expected.keys()
    assert sum(expected.values()) == pytest.approx(1)
    usual = {each: p for each, p in expected.items() if count * p >= 5}
    rest = 1 - sum(usual.values())
    statistic = sum((found[each] - count * p) ** 2 / (count * p) for each, p in usual.items())
    if rest > 1e-9:
        others = sum(times for each, times in found.items() if each not in usual)
        statistic += (others - count * rest) ** 2 / (count * rest)
    freedom = len(usual) - 1 + (rest > 1e-9)
    assert abs(statistic - freedom) < 3 * np.sqrt(2 * freedom)


def magnitude(name, number, bins):
    """RandAugment's and AutoAugment's."""
    ends = {"ShearX": 0.3, "ShearY": 0.3, "Rotate": 30.0} | dict.fromkeys(BLENDS, 0.9)
    ends |= dict.fromkeys(("TranslateX", "TranslateY"), 150 / 331 * SIDE)
    if name == "Posterize":
        return 8 - round(number / ((bins - 1) / 4))
    start, end = (255, 0) if name == "Solarize" else (0, ends.get(name, 0))
    return np.linspace(start, end, bins)[number]


def test_rand_augment_draws_two_operations_with_signs():
    steps = [each for name in FOURTEEN for each in signs(name, magnitude(name, 9, 31))]
    expected = collections.Counter()
    for (p, first), (q, second) in itertools.product(steps, repeat=2):
        expected[after(first, second).tobytes()] += p * q / 14**2
    check_frequencies(outcomes(policies.rand_augment, 4000), expected)


def test_trivial_augment_draws_magnitudes_too():
    ends = dict(zip(GEOMETRIC, (0.99, 0.99, 32.0, 32.0, 135.0), strict=True))
    ends |= dict.fromkeys(BLENDS, 0.99)
    expected = collections.Counter()
    for name, i in itertools.product(FOURTEEN, range(31)):
        value = np.linspace(0, ends.get(name, 0.0), 31)[i]
        value = {"Posterize": 8 - round(i / 5), "Solarize": 255 - 8.5 * i}.get(name, value)
        for probability, step in signs(name, value):
            expected[after(step).tobytes()] += probability / 14 / 31
    assert len(expected) > 400
    check_frequencies(outcomes(policies.trivial_augment, 6000), expected)


def test_auto_augment_draws_pairs_and_does_each_with_its_probability():
    expected = collections.Counter()
    for pair in SUB_POLICIES:
        choices = []
        for name, probability, number in pair:
            steps = signs(name, magnitude(name, number, 10))
            done = [(probability * each, (step,)) for each, step in steps]
            choices.append([(1 - probability, ()), *done])
        for (p, first), (q, second) in itertools.product(*choices):
            expected[after(*first, *second).tobytes()] += p * q / 25
    check_frequencies(outcomes(policies.auto_augment, 4000), expected)


def test_auto_augment_is_the_papers_table():
    """Counts and sums, as of torchvision's."""
    flat = [each for pair in SUB_POLICIES for each in pair]
    names = collections.Counter(name for name, _, _ in flat)
    assert len(SUB_POLICIES) == 25
    assert names["Equalize"] == 9 and names["AutoContrast"] == 7 and names["TranslateY"] == 5
    assert names["ShearX"] == 0 and names["Rotate"] == 1
    assert sum(probability for _, probability, _ in flat) == pytest.approx(26.5)
    assert sum(number for _, _, number in flat) == 187


def test_augmix_draws_depths_and_weights(monkeypatch):
    """With translations by one pixel only, a white pixel goes as far as its chain is deep."""
    monkeypatch.setattr(AUGMIX, "_rows", lambda *_: [("TranslateX", 1.0)])
    count = 3000
    images = jnp.zeros((count, 1, 5, 1), jnp.uint8).at[:, 0, 0, 0].set(255)
    made = np.asarray(jax.jit(policies.augmix)(keys(count), images))[:, 0, :, 0] / 255.0
    np.testing.assert_allclose(made.sum(axis=1), 1, atol=4 * 0.5 / 255 + 1e-6)
    assert (made[:, 4] == 0).all()
    # The image's share is uniform; of the rest, each depth has a third on average.
    quantiles = np.quantile(made[:, 0], [0.1, 0.25, 0.5, 0.75, 0.9])
    np.testing.assert_allclose(quantiles, [0.1, 0.25, 0.5, 0.75, 0.9], atol=0.04)
    np.testing.assert_allclose(made[:, 1:4].mean(axis=0), 1 / 6, atol=0.02)
    # Three chains of one depth each: all three the same in 1 of 9.
    alone = (made[:, 1:4] > 0).sum(axis=1)[made[:, 0] < 0.5] == 1
    assert abs(alone.mean() - 1 / 9) < 0.04


def test_augmix_weights_are_uniform_on_the_simplex():
    numbers = np.random.default_rng(0).random((20_000, 3), np.float32)
    weights = np.asarray(AUGMIX._weights(jnp.asarray(numbers)))
    assert (weights >= 0).all() and (weights.sum(axis=1) == 2**22).all()
    chains = weights[:, 1:] / np.maximum(weights[:, 1:].sum(axis=1, keepdims=True), 1)
    np.testing.assert_allclose(chains.mean(axis=0), 1 / 3, atol=0.01)
    # Dirichlet(1, 1, 1): variance 1/18, covariance -1/36.
    np.testing.assert_allclose(np.cov(chains.T), np.eye(3) / 12 - 1 / 36, atol=0.003)


def test_augmix_mixes_exactly():
    rng = np.random.default_rng(0)
    weights = AUGMIX._weights(jnp.asarray(rng.random((6, 3), np.float32)))
    images = rng.integers(0, 256, (6, 5, 4, 3), np.uint8)
    chains = rng.integers(0, 256, (6, 3, 5, 4, 3), np.uint8)
    everything = np.concatenate([images[:, None], chains], axis=1)
    expected = np.einsum("bk,bkhwc->bhwc", np.asarray(weights, np.float64), everything) / 2**22
    np.testing.assert_array_equal(AUGMIX._mix(images, chains, weights), np.floor(expected + 0.5))
    same = np.repeat(images[:, None], 3, axis=1)
    np.testing.assert_array_equal(AUGMIX._mix(images, same, weights), images)
