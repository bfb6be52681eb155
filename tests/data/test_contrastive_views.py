"""Views of self-supervised methods: what each part does to pixels."""

from __future__ import annotations

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from kdjax.data import contrastive_views as views
from kdjax.errors import UserError

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (48, 12, 16, 3), dtype=np.uint8)
KEY = jax.random.key(0)


def test_crops_are_pillows_enlarged_boxes():
    boxes = np.asarray(views._boxes(KEY, IMAGES.shape)).T
    out = np.asarray(jax.jit(views.resized_crop)(KEY, IMAGES))
    for image, crop, (top, left, height, width) in zip(IMAGES, out, boxes, strict=True):
        assert top >= 0 and left >= 0 and top + height <= 12 and left + width <= 16
        assert 0.15 < height * width / (12 * 16) <= 1
        box = tuple(map(int, (left, top, left + width, top + height)))
        expected = Image.fromarray(image).crop(box).resize((16, 12), Image.Resampling.BILINEAR)
        # Pillow rounds after each of the two axes.
        assert np.abs(crop.astype(int) - np.asarray(expected)).max() <= 1
    assert len(np.unique(boxes, axis=0)) > 40


def test_hues_turn_and_values_stay():
    pixels = IMAGES[:4].astype(np.int32)
    turns = np.array([0, 1000, -2000, 2457]).reshape(4, 1, 1, 1)
    out = np.asarray(views._turned(jnp.asarray(pixels), jnp.asarray(turns)))
    np.testing.assert_array_equal(out[0], pixels[0])
    for image, turned, turn in zip(pixels, out, turns.ravel(), strict=True):
        for pixel, actual in zip(image.reshape(-1, 3), turned.reshape(-1, 3), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*pixel / 255)
            expected = colorsys.hsv_to_rgb((hue + turn / 24576) % 1, saturation, value)
            np.testing.assert_allclose(actual, 255 * np.array(expected), atol=0.6)


def test_blends_are_those_of_pillow():
    image = Image.fromarray(IMAGES[0])
    pixels, gray = jnp.asarray(IMAGES[:1], jnp.int32), np.asarray(image.convert("L"))
    np.testing.assert_array_equal(views._gray(pixels)[0, ..., 0], gray)
    np.testing.assert_array_equal(views._mean_gray(pixels).ravel(), int(gray.mean() + 0.5))
    np.testing.assert_array_equal(views._blend(pixels, 0, 256), pixels)
    half = views._blend(pixels, views._gray(pixels), 128)[0]
    np.testing.assert_allclose(half, (IMAGES[0] + gray[..., None].astype(float)) / 2, atol=0.5)


def test_shares_of_images_that_change():
    many = np.repeat(IMAGES[:1], 2000, axis=0)
    for function, share in ((views.color_jitter, 0.8), (views.random_gray, 0.2)):
        out = np.asarray(jax.jit(function)(KEY, many))
        changed = (out != many).any(axis=(1, 2, 3)).mean()
        assert abs(changed - share) < 0.04


def test_blur_keeps_flat_images_and_lengths_of_kernels():
    flat = np.full((16, 64, 64, 1), 77, np.uint8)
    np.testing.assert_array_equal(views.gaussian_blur(KEY, flat), flat)
    for side in (8, 32, 224):
        kernels = views._kernels(side)
        np.testing.assert_array_equal(kernels.sum(axis=1), 4096)
        assert (kernels >= 0).all() and (kernels == kernels[:, ::-1]).all()
    places = np.arange(kernels.shape[1]) - kernels.shape[1] // 2
    sigma = np.sqrt((kernels[-1] * places**2).sum() / 4096)
    np.testing.assert_allclose(sigma, 2.0, rtol=0.03)


def test_gray_images_stay_gray_and_other_channels_are_refused():
    gray = IMAGES[..., :1]
    out = jax.jit(views.color_jitter)(KEY, gray)
    assert out.shape == gray.shape and (out != gray).any()
    np.testing.assert_array_equal(views.random_gray(KEY, gray), gray)
    with pytest.raises(UserError, match="images of 4 channels have no colors to change"):
        views.view(KEY, np.zeros((2, 8, 8, 4), np.uint8))
