"""Every operation of the policies, at every magnitude, against Pillow as torchvision calls it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from kdjax.data.policies import affine, magnitudes, operations, tones
from kdjax.data.policies.rand_augment import NAMES
from kdjax.errors import UserError

ENHANCERS = {
    "Brightness": ImageEnhance.Brightness,
    "Color": ImageEnhance.Color,
    "Contrast": ImageEnhance.Contrast,
    "Sharpness": ImageEnhance.Sharpness,
}
SIZES = {"square": (32, 32), "landscape": (20, 33)}


def pillow(image, name, magnitude):
    """uint8 [H, W, C] -> [H, W, C]; matrices as in AutoAugment's own code."""
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    matrices = {
        "ShearX": (1, magnitude, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, magnitude, 1, 0),
        "TranslateX": (1, 0, -int(magnitude), 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, -int(magnitude)),
    }
    if name in matrices:
        nearest = Image.Resampling.NEAREST
        out = picture.transform(picture.size, Image.Transform.AFFINE, matrices[name], nearest)
    elif name in ENHANCERS:
        out = ENHANCERS[name](picture).enhance(1.0 + magnitude)
    else:
        out = {
            "Identity": lambda: picture,
            "Rotate": lambda: picture.rotate(magnitude, Image.Resampling.NEAREST),
            "Posterize": lambda: ImageOps.posterize(picture, int(magnitude)),
            "Solarize": lambda: ImageOps.solarize(picture, magnitude),
            "AutoContrast": lambda: ImageOps.autocontrast(picture),
            "Equalize": lambda: ImageOps.equalize(picture),
            "Invert": lambda: ImageOps.invert(picture),
        }[name]()
    return np.asarray(out).reshape(image.shape)


def pictures(height, width, channels=3):
    """Noise; a smooth picture; one of few levels, in a corner of them; one color."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (3 + c)) + np.cos(y / (5 + 2 * c) - c) for c in range(channels)]
    shape = (height, width, channels)
    return {
        "noise": rng.integers(0, 256, shape, np.uint8),
        "smooth": np.uint8((np.stack(waves, -1) + 2) * 55 + 10),
        "few": rng.integers(90, 97 + 40 * np.arange(channels), shape).astype(np.uint8),
        "plain": np.full(shape, 201, np.uint8),
    }


def every_row(height, width):
    """All operations with all magnitudes of all policies, both signs."""
    wide = {"shear": 0.99, "translate": (32.0, 32.0), "degrees": 135.0, "enhance": 0.99}
    mild = {"shear": 0.3, "translate": (width / 3, height / 3), "degrees": 30.0, "enhance": 0.9}
    found = [
        magnitudes.moderate(31, height, width),
        magnitudes.moderate(10, height, width),
        magnitudes.bins(31, bits=(8, 6), **wide),
        {name: values[:9] for name, values in magnitudes.bins(10, bits=(4, 4), **mild).items()},
    ]
    rows = [
        each
        for space in found
        for name, values in space.items()
        for value in values
        if not (name == "Posterize" and value < 1)  # Pillow has no picture without any bit
        for each in operations.both_signs(name, value)
    ]
    return [*dict.fromkeys(rows), *((name, 0.0) for name in ("Identity", "Invert"))] + [
        (name, 0.0) for name in ("AutoContrast", "Equalize")
    ]


apply = jax.jit(operations.apply)


@functools.cache
def applied(height, width, channels):
    """Rows; of each picture, by name: what kdjax makes of it [R, H, W, C], and what Pillow does."""
    rows = every_row(height, width)
    table = operations.tabulate(rows, height, width)
    every = jnp.arange(len(rows))

    @jax.jit
    def all_of(image):
        images = jnp.broadcast_to(image, (len(rows), *image.shape))
        return operations.apply(table, every, images)

    found = {}
    for name, image in pictures(height, width, channels).items():
        expected = np.stack([pillow(image, *row) for row in rows])
        found[name] = np.asarray(all_of(image)), expected
    return rows, found


@pytest.mark.parametrize(("size", "channels"), [("square", 3), ("landscape", 3), ("landscape", 1)])
@pytest.mark.parametrize("picture", ["noise", "smooth", "few", "plain"])
def test_every_operation_is_pillows(size, picture, channels):
    rows, found = applied(*SIZES[size], channels)
    ours, expected = found[picture]
    differ = (ours != expected).any(axis=(1, 2, 3))
    assert {name for name, _ in rows} == {*NAMES, "Invert"}
    assert {name for (name, _), each in zip(rows, differ, strict=True) if each} <= {"AutoContrast"}
    lost = ours.astype(int) - expected
    assert lost.min() == 0 and lost.max() <= 1


def test_every_operation_does_something():
    rows, found = applied(*SIZES["square"], 3)
    changed = (found["smooth"][0] != pictures(*SIZES["square"])["smooth"]).any(axis=(1, 2, 3))
    for name in {*NAMES, "Invert"} - {"Identity"}:
        strongest = max(range(len(rows)), key=lambda i: (rows[i][0] == name, abs(rows[i][1])))
        if name in ("Posterize", "Solarize"):  # the fewer bits and the lower level, the stronger
            strongest = min(
                (i for i in range(len(rows)) if rows[i][0] == name), key=lambda i: rows[i][1]
            )
        assert changed[strongest], name


def images_between_levels(count, channels=3):
    """[count, 8, 8, channels]: levels from a random range per image and channel, ends included."""
    rng = np.random.default_rng(1)
    ends = np.sort(rng.integers(0, 256, (2, count, 1, 1, channels)), axis=0)
    images = rng.integers(ends[0], ends[1] + 1, (count, 8, 8, channels)).astype(np.uint8)
    images[:, 0, 0], images[:, 0, 1] = ends[0, :, 0, 0], ends[1, :, 0, 0]
    return images


def test_auto_contrast_differs_from_pillow_by_whole_quotients_only():
    images = images_between_levels(600)
    table = operations.tabulate([("AutoContrast", 0.0)], 8, 8)
    ours = np.asarray(apply(table, np.zeros(len(images), np.int32), images), int)
    expected = np.stack([pillow(image, "AutoContrast", 0.0) for image in images])
    levels = images.astype(int)
    low, high = (reduce(axis=(1, 2), keepdims=True) for reduce in (levels.min, levels.max))
    whole = 255 * (levels - low) % np.maximum(high - low, 1) == 0
    assert set(np.unique(ours - expected)) == {0, 1}
    assert whole[ours != expected].all()
    highest = ours.max(axis=(1, 2), keepdims=True)
    np.testing.assert_array_equal(highest, np.where(high > low, 255, low))


def test_equalize_is_pillows_whatever_the_histogram():
    rng = np.random.default_rng(2)
    images = []
    for levels in (2, 3, 5, 40, 256):
        for _ in range(20):
            weights = rng.dirichlet(np.full(levels, rng.choice([0.1, 1.0])))
            values = rng.choice(256, levels, replace=False)
            images.append(rng.choice(values, (24, 24, 3), p=weights).astype(np.uint8))
    images = np.stack(images)
    table = operations.tabulate([("Equalize", 0.0)], 24, 24)
    ours = apply(table, np.zeros(len(images), np.int32), images)
    expected = np.stack([pillow(image, "Equalize", 0.0) for image in images])
    np.testing.assert_array_equal(ours, expected)
    assert (expected != images).any() and (expected == images).all(axis=(1, 2)).any()


@pytest.mark.parametrize("size", [(2, 5), (3, 3)])
def test_images_without_an_inside(size):
    images = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    rows = [("Sharpness", 0.9), ("Rotate", 20.0), ("Equalize", 0.0), ("Contrast", -0.5)]
    every = np.repeat(images, len(rows), axis=0)
    ours = apply(operations.tabulate(rows, *size), np.arange(len(rows)), every)
    np.testing.assert_array_equal(ours, np.stack([pillow(images[0], *row) for row in rows]))


def test_large_images_stay_in_fixed_point():
    height, width = 300, 1500
    image = np.random.default_rng(0).integers(0, 256, (height, width, 1), np.uint8)
    for degrees in (135.0, -17.3):
        matrix = affine.fixed_point(affine.rotate(degrees, height, width))
        ours = jax.jit(affine.sample)(image[None], matrix[None])[0]
        np.testing.assert_array_equal(ours, pillow(image, "Rotate", degrees))


def test_right_angles():
    image, angles = pictures(16, 16)["noise"], (90.0, -90.0, 0.0, 180.0)
    matrices = np.stack([affine.fixed_point(affine.rotate(each, 16, 16)) for each in angles])
    ours = jax.jit(affine.sample)(np.stack([image] * 4), matrices)
    expected = [pillow(image, "Rotate", each) for each in angles]
    np.testing.assert_array_equal(ours, np.stack(expected))


def test_rows_of_a_batch_do_not_mix():
    images = np.stack([*pictures(12, 12).values()])
    rows = [("Equalize", 0.0), ("ShearX", 0.3), ("Contrast", 0.9), ("Sharpness", -0.9)]
    table = operations.tabulate(rows, 12, 12)
    order = np.array([3, 1, 0, 2])
    ours = apply(table, order, images)
    expected = [pillow(image, *rows[row]) for image, row in zip(images, order, strict=True)]
    np.testing.assert_array_equal(ours, np.stack(expected))


def test_tables_are_shared():
    table = operations.tabulate([("Color", 0.3), ("Rotate", 5.0), ("Sharpness", 0.3)], 8, 8)
    assert table.tables.shape == (2, tones.ENTRIES)
    assert table.which[0] == table.which[2] != table.which[1]


def test_magnitudes_are_torchvisions():
    torch = pytest.importorskip("torch")
    found = magnitudes.moderate(31, 28, 40)
    ends = {"ShearX": 0.3, "TranslateX": 150 / 331 * 40, "TranslateY": 150 / 331 * 28}
    ends |= {"Rotate": 30.0, "Sharpness": 0.9}
    for name, end in ends.items():
        np.testing.assert_allclose(found[name], torch.linspace(0.0, end, 31), rtol=1e-6)
    np.testing.assert_allclose(found["Solarize"], torch.linspace(255.0, 0.0, 31), rtol=1e-6)
    for count, first, fewer in ((31, 8, 4), (10, 8, 4), (31, 8, 6), (10, 4, 4)):
        bits = first - (torch.arange(count) / ((count - 1) / fewer)).round().int()
        strongest = {"shear": 1.0, "translate": (1.0, 1.0), "degrees": 1.0, "enhance": 1.0}
        ours = magnitudes.bins(count, bits=(first, fewer), **strongest)["Posterize"]
        np.testing.assert_array_equal(ours, bits)


def test_unknown_operation():
    with pytest.raises(ValueError, match="no operation is called 'Twirl'"):
        operations.tabulate([("Twirl", 1.0)], 8, 8)


def test_two_channels():
    table = operations.tabulate([("Identity", 0.0)], 4, 4)
    with pytest.raises(UserError, match=r"config\.data\.policies.*2 channels.*cutout"):
        jax.eval_shape(apply, table, np.zeros(1, np.int32), np.zeros((1, 4, 4, 2), np.uint8))
