"""Single images: sizes, boxes and broken files."""

import io

import numpy as np
import pytest
from PIL import Image

from kdjax.data import images
from kdjax.errors import UserError


def gradient(height, width):
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x, y + x], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(40, 30), (30, 40), (16, 90), (10, 7), (16, 16)])
def test_fit_gives_the_square(height, width):
    assert images.fit(gradient(height, width), 16).shape == (16, 16, 3)
    assert images.fit(gradient(height, width)[..., :1], 16).shape == (16, 16, 1)


def test_fit_takes_the_center_and_leaves_the_right_size_alone():
    image = gradient(16, 40)
    np.testing.assert_array_equal(images.fit(image, 16), image[:, 12:28])
    square = gradient(16, 16)
    assert images.fit(square, 16) is square


def test_evaluation_crops_only_what_is_bigger():
    small, large = gradient(16, 16), gradient(64, 64)
    np.testing.assert_array_equal(images.fit_evaluation(small, 16, 0.875), small)
    cropped = images.fit_evaluation(large, 56, 0.875)
    np.testing.assert_array_equal(cropped, large[4:60, 4:60])


@pytest.mark.parametrize(("height", "width"), [(30, 40), (5, 200), (200, 5), (1, 1)])
def test_random_boxes_lie_inside_the_image(height, width):
    rng = np.random.default_rng(0)
    for _ in range(200):
        left, top, right, bottom = images.random_box(rng, height, width)
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height


def test_random_boxes_have_the_wanted_areas_and_aspects():
    rng = np.random.default_rng(0)
    boxes = np.array([images.random_box(rng, 200, 200) for _ in range(2000)])
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area, aspect = widths * heights / 200**2, widths / heights
    assert area.min() > 0.07
    # Boxes too large for the image are drawn again, so the mean is below that of U(0.08, 1).
    assert 0.40 < area.mean() < 0.54
    assert aspect.min() > 0.72
    assert aspect.max() < 1.38
    assert abs(np.log(aspect).mean()) < 0.02


def test_an_image_too_narrow_for_any_box_gives_its_center():
    left, top, right, bottom = images.random_box(np.random.default_rng(0), 10, 1000)
    assert (top, bottom) == (0, 10)
    assert right - left == 13
    assert left == (1000 - 13) // 2


def test_decode_modes():
    png = io.BytesIO()
    Image.fromarray(gradient(6, 4)).save(png, "PNG")
    np.testing.assert_array_equal(images.decode(png.getvalue(), where="x"), gradient(6, 4))
    assert images.decode(png.getvalue(), mode="L", where="x").shape == (6, 4, 1)


def test_decode_names_the_broken_file():
    jpeg = io.BytesIO()
    Image.fromarray(gradient(40, 40)).save(jpeg, "JPEG")
    with pytest.raises(UserError, match=r"a/b\.jpg: unreadable image \(.*truncated"):
        images.decode(jpeg.getvalue()[:-20], where="a/b.jpg")
    with pytest.raises(UserError, match=r"a/b\.jpg: unreadable image \(not an image\)"):
        images.decode(b"", where="a/b.jpg")


def test_images_of_four_channels_cannot_be_resized():
    with pytest.raises(UserError, match=r"4 channels.*config\.data\.image_size"):
        images.fit(np.zeros((9, 8, 4), np.uint8), 4)


def encoded(array, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_sixteen_bit_gray_is_scaled(mode):
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    pixels = images.decode(encoded(ramp), mode=mode, where="x")
    for channel in range(pixels.shape[-1]):
        np.testing.assert_array_equal(pixels[..., channel], ramp >> 8)


def test_transparency_keeps_the_color():
    file = io.BytesIO()
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    picture.save(file, "PNG", transparency=bytes([0, 128, 255]))
    pixels = images.decode(file.getvalue(), where="x")
    np.testing.assert_array_equal(pixels[0], [[10, 20, 30], [40, 50, 60], [70, 80, 90]])


def test_formats_that_start_programs_are_not_tried():
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(UserError, match=r"x: unreadable image \(not an image\)"):
        images.decode(script, where="x")


def test_an_image_larger_than_the_memory(monkeypatch):
    monkeypatch.setattr("kdjax.data.available_memory.available_bytes", lambda: 99)
    with pytest.raises(UserError, match=r"x needs .* of memory"):
        images.decode(encoded(gradient(5, 5)), where="x")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {}),
        ("BMP", {}),
        ("GIF", {}),
    ],
)
def test_damaged_images_are_read_or_refused(kind, options, tmp_path):
    whole, rng, refused = encoded(gradient(20, 30), kind, **options), np.random.default_rng(0), 0
    for number in range(150):
        damaged = bytearray(whole[: rng.integers(len(whole))] if number % 3 == 0 else whole)
        for _ in range(min(rng.integers(0, 6), len(damaged))):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        (tmp_path / "image").write_bytes(damaged)
        try:
            pixels = images.decode(bytes(damaged), where="x")
            assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
            assert images.stored_size(tmp_path / "image") == pixels.shape[:2]
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 20


@pytest.mark.parametrize("shape", [(1, 100_000, 3), (100_000, 1, 3), (2, 40_000, 1)])
def test_of_very_long_images_the_center_is_resized(shape, monkeypatch):
    sizes, resize = [], Image.Image.resize
    monkeypatch.setattr(
        Image.Image,
        "resize",
        lambda self, size, *arguments: sizes.append(size) or resize(self, size, *arguments),
    )
    image = np.zeros(shape, np.uint8)
    image[tuple(slice(max(0, length // 2 - 2), length // 2 + 2) for length in shape[:2])] = 200
    fitted = images.fit(image, 64)
    assert fitted.shape == (64, 64, shape[2]) and fitted.min() > 0
    assert [sorted(size) for size in sizes] == [[64, 1024]]


def test_long_images_are_fitted_as_before():
    image = gradient(8, 128)
    whole = Image.fromarray(image).resize((512, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(images.fit(image, 32), np.asarray(whole)[:, 240:272])
