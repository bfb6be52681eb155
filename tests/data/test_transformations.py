"""Views of images that a network is to tell apart."""

import itertools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.data import transformations
from kdjax.errors import UserError
from tests import golden

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3)).astype(np.uint8)
every_set = pytest.mark.parametrize("name", transformations.NAMES)


@pytest.mark.parametrize("name", golden.loss_names("hsakd_rotation_"))
def test_rotations_are_the_official_batch(name):
    _, arrays = golden.loss(name)
    rotations = transformations.create("rotations")
    with jax.enable_x64(True):
        rows = rotations.rows(arrays["in_x"])
    np.testing.assert_array_equal(rows, arrays["out_x"])
    flat = np.transpose(rows, (0, 3, 1, 2)).reshape(len(rows), -1)
    np.testing.assert_array_equal(flat, arrays["out_x_flat_nchw"])


@every_set
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, jnp.bfloat16])
def test_views_are_different_and_the_first_is_the_image(name, dtype):
    chosen = transformations.create(name)
    images = jnp.asarray(IMAGES, dtype)
    views = jax.jit(chosen.views)(images)
    assert views.shape == (3, chosen.count, 4, 4, 3)
    assert views.dtype == images.dtype
    np.testing.assert_array_equal(views[:, 0], images)
    pixels = np.asarray(views, np.float32).reshape(3, chosen.count, -1)
    for one in pixels:
        assert len(np.unique(one, axis=0)) == chosen.count
    # Pixels change places, within an image, and none changes its value.
    ordered = np.sort(pixels, axis=2)
    np.testing.assert_array_equal(ordered, ordered[:, :1].repeat(chosen.count, 1))


@every_set
def test_views_of_an_image_are_next_to_each_other(name):
    chosen = transformations.create(name)
    rows = chosen.rows(jnp.asarray(IMAGES))
    alone = [chosen.rows(jnp.asarray(IMAGES[i : i + 1])) for i in range(3)]
    np.testing.assert_array_equal(rows, np.concatenate(alone))


def test_sizes():
    counts = [transformations.create(name).count for name in transformations.NAMES]
    assert dict(zip(transformations.NAMES, counts, strict=True)) == {
        "rotations": 4,
        "color_permutations": 6,
        "both": 24,
    }


def test_a_rotation_by_90_degrees_is_counter_clockwise():
    image = np.array([[1, 2], [3, 4]])[None, :, :, None]
    views = transformations.rotations(jnp.asarray(image))[0, :, :, :, 0]
    np.testing.assert_array_equal(views[1], [[2, 4], [1, 3]])
    np.testing.assert_array_equal(views[2], [[4, 3], [2, 1]])


def test_orders_of_channels():
    pixel = np.array([10, 20, 30])[None, None, None]
    views = transformations.color_permutations(jnp.asarray(pixel))[0, :, 0, 0]
    names = ["".join("RGB"[value // 10 - 1] for value in view) for view in np.asarray(views)]
    assert names == ["RGB", "RBG", "GRB", "GBR", "BRG", "BGR"]


def test_both_are_every_rotation_in_every_order():
    views = transformations.rotated_color_permutations(jnp.asarray(IMAGES))
    orders = list(itertools.permutations(range(3)))
    for turns, order in itertools.product(range(4), range(6)):
        expected = np.rot90(IMAGES, turns, (1, 2))[..., orders[order]]
        np.testing.assert_array_equal(views[:, 6 * turns + order], expected)


def test_images_that_are_not_square_or_have_no_colors():
    wide, gray = jnp.zeros((2, 4, 6, 3)), jnp.zeros((2, 4, 4, 1))
    assert transformations.color_permutations(wide).shape == (2, 6, 4, 6, 3)
    assert transformations.rotations(gray).shape == (2, 4, 4, 4, 1)
    for function in (transformations.rotations, transformations.rotated_color_permutations):
        with pytest.raises(UserError, match="4x6 pixels cannot be rotated by 90 degrees"):
            function(wide)
    for function in (
        transformations.color_permutations,
        transformations.rotated_color_permutations,
    ):
        with pytest.raises(UserError, match="1 channels have no colors to permute"):
            function(gray)


def test_unknown_names():
    with pytest.raises(UserError, match="'flips' is unknown; did you mean 'rotations'"):
        transformations.create("flips")


def test_import_needs_no_library_of_a_data_set():
    heavy = ("flax", "tensorflow_datasets", "orbax", "grain", "sklearn", "ml_collections", "torch")
    program = (
        f"import sys, kdjax.data.transformations; print(*sorted(set({heavy!r}) & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert result.stdout.split() == []
