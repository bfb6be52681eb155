"""Mixed images: mixup, CutMix and manifold mixup against the official code, and properties."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses
from kdjax.losses import Mixture
from tests import golden


def given(arrays: dict, dtype) -> Mixture:
    return Mixture(jnp.asarray(arrays["in_lam"], dtype), arrays["in_index"])


def network(weights, images):
    """The harness's: averaged pixels, and a linear classifier."""
    return images.mean((1, 2)) @ weights.T


def check_step(arrays, dtype, make) -> None:
    """Logits, loss and gradient of the weights; `make` mixes the images in the mixture given."""

    def loss(weights):
        images, mixture = make(arrays["in_x"].astype(dtype), given(arrays, dtype))
        logits = network(weights, images)
        return losses.mixed_cross_entropy(logits, arrays["in_targets"], mixture).mean(), logits

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, logits), gradient = run(arrays["in_W"].astype(dtype))
    golden.compare(value, arrays["out_loss"], dtype)
    golden.compare(logits, arrays["out_logits"], dtype)
    golden.compare(gradient, arrays["grad_W"], dtype)


@pytest.mark.parametrize("name", golden.loss_names("selfkd_mixup_"))
def test_mixup(name, dtype):
    _, arrays = golden.loss(name)
    check_step(arrays, dtype, lambda images, mixture: (losses.mix(images, mixture), mixture))


@pytest.mark.parametrize("name", golden.loss_names("selfkd_cutmix_"))
def test_cutmix(name, dtype):
    _, arrays = golden.loss(name)
    mixture, images = given(arrays, dtype), arrays["in_x"].astype(dtype)
    box = losses.cutmix_box(arrays["in_center"], mixture.lam, images.shape[1:3])
    np.testing.assert_array_equal(box, arrays["out_bbox"])
    mixed, adjusted = losses.cutmix(images, mixture, box)
    golden.compare(mixed, arrays["out_x"], dtype)
    golden.compare(adjusted.lam, arrays["out_lam"], dtype)
    np.testing.assert_array_equal(adjusted.order, arrays["in_index"])
    check_step(arrays, dtype, lambda images, mixture: losses.cutmix(images, mixture, box))


@pytest.mark.parametrize("name", golden.loss_names("selfkd_manifold_mixup_"))
def test_manifold_mixup(name, dtype):
    _, arrays = golden.loss(name)
    mixture = given(arrays, dtype)

    def probe(maps, logits):
        mixed = losses.mix(maps, mixture)
        loss = losses.mixed_cross_entropy(logits, arrays["in_targets"], mixture).mean()
        return loss + jnp.sum(mixed**2), (mixed, loss)

    run = jax.jit(jax.value_and_grad(probe, argnums=(0, 1), has_aux=True))
    inputs = arrays["in_h"].astype(dtype), arrays["in_logits"].astype(dtype)
    (value, (mixed, loss)), (maps, logits) = run(*inputs)
    golden.compare(value, arrays["out_probe"], dtype)
    golden.compare(mixed, arrays["out_h"], dtype)
    golden.compare(loss, arrays["out_loss"], dtype)
    golden.compare(maps, arrays["grad_h"], dtype)
    golden.compare(logits, arrays["grad_logits"], dtype)


@pytest.mark.parametrize("name", golden.loss_names("mixskd_mixup_data_"))
def test_mixed_data(name, dtype):
    _, arrays = golden.loss(name)
    mixture = given(arrays, dtype)
    golden.compare(losses.mix(arrays["in_x"].astype(dtype), mixture), arrays["out_x"], dtype)
    partners = arrays["in_targets"][mixture.order]
    np.testing.assert_array_equal(partners, arrays["out_targets_b"])


# Properties

LABELS = np.array([0, 1, 2, 1])
MIXTURE = Mixture(jnp.float32(0.25), np.array([2, 0, 1, 3]))


def test_draws():
    """The moments of Beta(alpha, alpha), and permutations in which no image is preferred."""
    alpha = 0.4
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = jax.jit(jax.vmap(lambda key: losses.draw_mixture(key, 4, alpha=alpha)))(keys)
    lam, order = np.asarray(drawn.lam, np.float64), np.asarray(drawn.order)
    assert ((lam >= 0) & (lam <= 1)).all()
    # Standard errors of the mean and of the variance are below 0.006 and 0.002.
    assert abs(lam.mean() - 0.5) < 0.03
    assert abs(lam.var() - 1 / (4 * (2 * alpha + 1))) < 0.01
    assert (np.sort(order, axis=1) == np.arange(4)).all()
    shares = (order[..., None] == np.arange(4)).mean(0)
    np.testing.assert_allclose(shares, 0.25, atol=0.04)
    # Lambda says nothing about partners.
    assert abs(np.corrcoef(lam, order[:, 0])[0, 1]) < 0.07


@pytest.mark.parametrize("alpha", [0.0, -1.0])
def test_alpha_must_be_positive(alpha):
    with pytest.raises(ValueError, match="must be positive"):
        losses.draw_mixture(jax.random.key(0), 4, alpha=alpha)


def test_nothing_is_mixed_where_lambda_is_one():
    x = np.random.default_rng(0).normal(size=(4, 3, 3, 2)).astype(np.float32)
    whole = MIXTURE._replace(lam=jnp.float32(1))
    np.testing.assert_array_equal(losses.mix(x, whole), x)
    box = losses.cutmix_box(np.array([1, 1]), whole.lam, (3, 3))
    mixed, adjusted = losses.cutmix(x, whole, box)
    np.testing.assert_array_equal(mixed, x)
    assert adjusted.lam == 1


def test_mix_keeps_the_dtype_and_computes_in_float32():
    x = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    half = jnp.asarray(x, jnp.bfloat16)
    mixed = losses.mix(half, MIXTURE)
    assert mixed.dtype == jnp.bfloat16
    expected = losses.mix(half.astype(np.float32), MIXTURE).astype(jnp.bfloat16)
    np.testing.assert_array_equal(mixed, expected)
    pixels = np.array([[0], [40], [80], [255]], np.uint8)
    np.testing.assert_array_equal(losses.mix(pixels, MIXTURE)[:, 0], [60, 10, 50, 255])


def test_lambda_of_cutmix_is_the_share_of_the_pixels():
    """Wherever the box is, at the borders too: images of one shade each show what is whose."""
    size, order = (7, 5), np.array([1, 2, 3, 0])
    images = np.arange(4.0, dtype=np.float32)[:, None, None, None] * np.ones((4, *size, 1))

    @jax.jit
    def run(lam, keys):
        def one(key):
            return losses.cutmix(images, Mixture(lam, order), losses.draw_box(key, lam, size))

        mixed, mixture = jax.vmap(one)(keys)
        return mixed, mixture.lam

    keys = jax.random.split(jax.random.key(0), 200)
    for lam in (0.0, 0.3, 0.9, 0.999):
        mixed, adjusted = map(np.asarray, run(lam, keys))
        own = mixed == images
        np.testing.assert_array_equal(mixed, np.where(own, images, images[order]))
        shares = own.mean((1, 2, 3, 4))
        np.testing.assert_allclose(adjusted, shares, atol=1e-6)
        assert (own.mean((2, 3, 4)) == shares[:, None]).all()
        # Every pixel is somewhere in a box, and the boxes are as large as they can be.
        filled = ~own[:, 0, :, :, 0]
        sides = [2 * (int(side * np.sqrt(1 - lam)) // 2) for side in size]
        assert filled.any(0).all() == (min(sides) > 0)
        assert filled.sum((1, 2)).max() == sides[0] * sides[1]


def test_mixed_cross_entropy_is_that_of_mixed_labels():
    logits = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    one_hot = np.eye(3, dtype=np.float32)[LABELS]
    expected = losses.cross_entropy(logits, losses.mix(one_hot, MIXTURE))
    actual = jax.jit(losses.mixed_cross_entropy)(logits, LABELS, MIXTURE)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    assert np.isfinite(losses.mixed_cross_entropy(1e4 * logits, LABELS, MIXTURE)).all()
