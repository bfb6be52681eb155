"""Images and masks that are augmented together, and drawn."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from kdjax import segmentation
from kdjax.cli.prediction_picture import with_legend
from kdjax.segmentation import pictures
from kdjax.segmentation.augment import Augmentation, augmenter

FILL = np.array([7.0, 8.0, 9.0], np.float32)


def pairs(count: int = 16, height: int = 9, width: int = 11):
    """Images whose channels are 10 times a pixel's class, and their masks; sizes are smaller."""
    random = np.random.default_rng(0)
    masks = random.integers(0, 20, (count, height, width)).astype(np.uint8)
    images = np.repeat(10 * masks[..., None], 3, axis=-1)
    sizes = np.tile(np.array([[height - 2, width - 1]], np.int32), (count, 1))
    masks[:, height - 2 :], masks[:, :, width - 1 :] = 255, 255
    images[:, height - 2 :], images[:, :, width - 1 :] = 0, 0
    return images, masks, sizes


def run(settings: Augmentation, seed: int = 0):
    images, masks, sizes = pairs()
    keys = jax.random.split(jax.random.key(seed), len(images))
    found = jax.jit(augmenter(settings))(keys, images, masks, sizes, FILL)
    return tuple(map(np.asarray, found)), (images, masks, sizes)


def test_without_scale_image_and_mask_are_one_window_mirrored_or_not():
    settings = Augmentation(6, 8, smallest=1.0, largest=1.0)
    (images, masks), (stored, stored_masks, _) = run(settings)
    np.testing.assert_array_equal(images, np.repeat(10.0 * masks[..., None], 3, axis=-1))
    seen = set()
    for index, mask in enumerate(masks):
        for top in range(2):
            for left in range(3):
                window = stored_masks[index, top : top + 6, left : left + 8]
                for mirrored in (False, True):
                    if np.array_equal(mask, window[:, ::-1] if mirrored else window):
                        seen.add((top, left, mirrored))
    assert len(seen) > 5 and {mirrored for *_, mirrored in seen} == {False, True}
    assert stored.shape[1:3] == (9, 11)


def test_what_is_smaller_than_the_crop_is_padded_and_counts_nowhere():
    settings = Augmentation(10, 12, smallest=1.0, largest=1.0, flip=False)
    (images, masks), (stored, stored_masks, sizes) = run(settings)
    rows, columns = sizes[0]
    np.testing.assert_array_equal(images[:, :rows, :columns], stored[:, :rows, :columns])
    np.testing.assert_array_equal(masks[:, :rows, :columns], stored_masks[:, :rows, :columns])
    assert (masks[:, rows:] == segmentation.IGNORED).all()
    assert (masks[:, :, columns:] == segmentation.IGNORED).all()
    np.testing.assert_array_equal(images[:, rows:], np.broadcast_to(FILL, images[:, rows:].shape))


def test_scaled_images_are_resized_bilinearly_and_masks_by_the_nearest_pixel():
    settings = Augmentation(14, 20, smallest=2.0, largest=2.0, flip=False)
    (images, masks), (stored, stored_masks, sizes) = run(settings)
    rows, columns = sizes[0]
    pixels = jnp.asarray(stored[:, :rows, :columns], jnp.float32)
    expected = segmentation.bilinear(pixels, 2 * rows, 2 * columns)
    np.testing.assert_allclose(images, expected, atol=1e-3)
    nearest = stored_masks[:, :rows, :columns].repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_array_equal(masks, nearest)


def test_a_legend_names_the_colors_of_classes():
    shades = pictures.colors(40)
    assert len({tuple(shade) for shade in shades}) == 40
    names = [f"class {number}" for number in range(40)]
    page = Image.new("RGB", (200, 50), "gray")
    drawn = np.asarray(with_legend(page, names, shades))
    assert drawn.shape[1] == 200 and (drawn[:50] == np.asarray(page)).all()
    below = {tuple(pixel) for pixel in drawn[50:].reshape(-1, 3)}
    assert {tuple(shade) for shade in shades} <= below


def test_scales_are_drawn_from_a_range_or_its_steps():
    def heights(step):
        settings = Augmentation(30, 30, smallest=0.5, largest=2.0, step=step, flip=False)
        (_, masks), _ = run(settings)
        return {int((mask[:, 0] != segmentation.IGNORED).sum()) for mask in masks}

    assert heights(0.5) <= {4, 7, 10, 14} and len(heights(0.5)) > 2
    assert len(heights(0.0)) > 4 and max(heights(0.0)) <= 14
