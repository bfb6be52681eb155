"""Cutout and random erasing: where their rectangles are, and what is in them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.data import policies
from tests.data.test_policies import compiled, holes, keys


def test_cutout_fills_a_clipped_square_with_the_fill():
    images = jnp.full((2000, 12, 16, 3), 9, jnp.uint8)
    made = np.asarray(compiled("cutout", fill=(1, 2, 3))(keys(2000), images))
    hole = holes(made, images)
    assert (made[hole] == [1, 2, 3]).all()
    rows, columns = hole.any(axis=2), hole.any(axis=1)
    np.testing.assert_array_equal(hole, rows[:, :, None] & columns[:, None, :])
    # A quarter of the shorter side, 3; middles on every pixel, one column after the first one.
    np.testing.assert_array_equal(np.unique(rows.sum(1)), [2, 3])
    first, last = columns.argmax(axis=1), 15 - columns[:, ::-1].argmax(axis=1)
    middles = np.where(first > 0, first + 1, last - 1)
    counts = np.bincount(middles, minlength=16)
    assert len(counts) == 16 and counts.min() > 80 and counts.max() < 175
    assert (columns.sum(1) == 2).mean() == pytest.approx(2 / 16, abs=0.03)


@pytest.mark.parametrize(("length", "side"), [(None, 8), (16, 16), (5, 5)])
def test_cutout_of_a_given_length(length, side):
    images = jnp.full((600, 32, 32, 1), 200, jnp.uint8)
    cutout = jax.jit(functools.partial(policies.cutout, length=length, fill=7))
    hole = holes(cutout(keys(600), images), images)
    for sides in (hole.any(axis=2).sum(1), hole.any(axis=1).sum(1)):
        assert sides.max() == side and sides.min() == (side + 1) // 2


def test_random_erasing_fills_rectangles_with_noise():
    count, side = 4000, 32
    images = jnp.full((count, side, side, 3), 77, jnp.uint8)
    made = np.asarray(jax.jit(policies.random_erasing)(keys(count), images))
    hole = holes(made, images)
    erased = hole.any(axis=(1, 2))
    assert abs(erased.mean() - 0.5) < 0.04
    rows, columns = hole.any(axis=2)[erased], hole.any(axis=1)[erased]
    # Noise equals the image by chance in one of 2**24 pixels.
    np.testing.assert_array_equal(hole[erased], rows[:, :, None] & columns[:, None, :])
    heights, widths = rows.sum(1), columns.sum(1)
    assert heights.max() < side and widths.max() < side
    assert 0.015 < (heights * widths / side**2).min() < 0.03
    assert 0.35 < (heights * widths / side**2).max() < 0.43
    assert 0.2 < (heights / widths).min() < 0.4 and 2.5 < (heights / widths).max() < 4.5
    # All places where it fits: the room above it is a uniform part of all room.
    above = rows.argmax(axis=1) / (side - heights)
    assert above.min() == 0 and above.max() == 1 and abs(above.mean() - 0.5) < 0.03
    levels = np.bincount(made[hole].ravel(), minlength=256)
    assert np.abs(levels / levels.mean() - 1).max() < 0.1


def test_random_erasing_as_told():
    images = jnp.full((200, 24, 48, 1), 77, jnp.uint8)

    @jax.jit
    def squares(probability, part):
        settings = {"probability": probability, "area": (part, part), "aspect": 1.0}
        return policies.random_erasing(keys(200), images, **settings)

    # Squares of 0.9 of the area of a wide image do not fit: it stays as it is.
    usual = round((0.1 * 24 * 48) ** 0.5)
    for probability, part, side in ((0.0, 0.1, 0), (1.0, 0.1, usual), (1.0, 0.9, 0)):
        hole = holes(squares(probability, part), images)
        for sides in (hole.any(axis=2).sum(1), hole.any(axis=1).sum(1)):
            assert sides.max() == side and (sides == side).mean() > 0.95  # noise may be 77, too
