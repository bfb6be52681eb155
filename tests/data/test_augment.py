"""Augmentation on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.data import augment
from kdjax.errors import UserError


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.integers(1, 256, (64, 8, 8, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name.startswith("contrastive") else [])
        for name in augment.AUGMENTATIONS
    ],
)
def test_augmenters_keep_shape_and_type_and_do_not_change_under_jit(name, images):
    function = augment.AUGMENTATIONS[name].augment
    key = jax.random.key(3)
    out = function(key, images)
    assert out.shape == images.shape
    assert out.dtype == jnp.uint8
    np.testing.assert_array_equal(out, jax.jit(function)(key, images))
    np.testing.assert_array_equal(out, function(key, images))


def test_none_is_the_identity_and_the_others_are_not(images):
    key = jax.random.key(0)
    np.testing.assert_array_equal(augment.AUGMENTATIONS["none"].augment(key, images), images)
    for name in ("crop_flip", "crop", "resized_crop_flip"):
        assert (augment.AUGMENTATIONS[name].augment(key, images) != images).any()


def test_crop_is_a_window_of_the_zero_padded_image(images):
    out = np.asarray(augment.random_crop(jax.random.key(1), images, padding=2))
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    offsets = []
    for image, source in zip(out, padded, strict=True):
        found = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if (image == source[y : y + 8, x : x + 8]).all()
        ]
        assert len(found) == 1
        offsets += found
    # 64 images, 25 windows: every image draws its own, over the whole range.
    assert len(set(offsets)) > 15
    assert {y for y, _ in offsets} == {x for _, x in offsets} == set(range(5))


def test_crop_without_padding_is_the_identity(images):
    np.testing.assert_array_equal(augment.random_crop(jax.random.key(0), images, 0), images)


def test_flip_mirrors_about_half_of_the_images(images):
    out = np.asarray(augment.random_flip(jax.random.key(0), images))
    source = np.asarray(images)
    same = (out == source).all(axis=(1, 2, 3))
    mirrored = (out == source[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 16 <= mirrored.sum() <= 48


def test_keys_decide(images):
    crop_flip = augment.AUGMENTATIONS["crop_flip"].augment
    first, second = (crop_flip(jax.random.key(k), images) for k in (0, 1))
    assert (first != second).any()


def test_resized_crop_only_flips_on_the_device(images):
    key = jax.random.key(5)
    np.testing.assert_array_equal(
        augment.AUGMENTATIONS["resized_crop_flip"].augment(key, images),
        augment.random_flip(key, images),
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_normalize(images, dtype):
    mean, std = np.array([0.5, 0.4, 0.3], np.float32), np.array([0.2, 0.25, 0.5], np.float32)
    out = augment.normalize(images, mean, std, dtype)
    assert out.dtype == dtype
    expected = (np.asarray(images) / 255.0 - mean) / std
    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    np.testing.assert_allclose(np.asarray(out, np.float32), expected, rtol=tolerance, atol=1e-5)


def test_unknown_augmentation():
    with pytest.raises(UserError, match=r"config\.data\.augmentation='flop'.*crop_flip"):
        _ = augment.AUGMENTATIONS["flop"]


def test_crops_on_the_host_belong_to_the_augmentation():
    kinds = augment.AUGMENTATIONS
    assert {name for name, kind in kinds.items() if kind.crop} == {
        "resized_crop_flip",
        "contrastive_streamed",
    }
    assert kinds["resized_crop_flip"].evaluation_crop == 0.875
    assert kinds["crop_flip"].evaluation_crop == kinds["none"].evaluation_crop == 1


def test_registering_wrongly():
    with pytest.raises(ValueError, match="'crop' is registered already"):
        augment.register_augmentation("crop", augment.random_crop)
    for share in (0, 1.1):
        with pytest.raises(ValueError, match="evaluation_crop"):
            augment.register_augmentation("mine", augment.random_crop, evaluation_crop=share)
