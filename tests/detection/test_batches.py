"""Augmentation of images with boxes, and padded batches."""

import numpy as np
import pytest
from PIL import Image

from kdjax.detection import augmentation, batches
from kdjax.detection.annotations import AnnotatedSet, Object, annotated
from kdjax.errors import UserError

SETTINGS = augmentation.Augmentation(crop=0.6, flip=0.5, min_sizes=(40, 60), max_size=96)


def _marked(height=40, width=56):
    """A dark image whose box is bright."""
    pixels = np.zeros((height, width, 3), np.float32)
    box = np.array([[24, 12, 40, 28]], np.float32)
    pixels[12:28, 24:40] = 1
    return pixels, box


def _bright(pixels):
    """The box around what is bright."""
    rows, columns = np.nonzero(pixels[..., 0] > 0.5)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_flip_and_crop_move_boxes_with_pixels():
    pixels, box = _marked()
    flipped, boxes = augmentation.flip(pixels, box)
    np.testing.assert_array_equal(boxes[0], _bright(flipped))
    cropped, boxes, inside = augmentation.crop(pixels, box, (10, 5, 36, 38))
    np.testing.assert_array_equal(boxes[0], _bright(cropped))
    assert inside.tolist() == [True]
    *_, inside = augmentation.crop(pixels, box, (34, 5, 56, 38))
    assert inside.tolist() == [False]


def test_augmented_boxes_stay_on_their_objects():
    pixels, box = _marked()
    shapes = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        changed, boxes, kept = augmentation.augment(pixels, box, SETTINGS, rng)
        shapes.add(changed.shape)
        assert max(changed.shape[:2]) <= SETTINGS.max_size
        if kept[0]:
            # Interpolation blurs an edge by half a pixel of the enlarged image.
            np.testing.assert_allclose(boxes[0], _bright(changed), atol=1.6)
    assert len(shapes) > 20


def _set(folder, count=3):
    read = []
    for i in range(count):
        pixels, box = _marked(40 + 8 * i)
        file = folder / f"{i}.png"
        Image.fromarray((255 * pixels).astype(np.uint8)).save(file)
        # The first has no object; the last an ignored one, too.
        objects = [Object(tuple(box[0]), i, "here")] if i else []
        if i == count - 1:
            objects.append(Object((0, 0, 5, 5), 1, "here", ignored=True))
        read.append(annotated(file, *pixels.shape[:2], objects))
    return AnnotatedSet(tuple(read), ("a", "b"))


def _batches(data, order, **changes):
    arguments = {"objects": 2, "seed": 3, "epoch": 1} | changes
    mean, std = np.zeros(3), np.ones(3)
    settings = SETTINGS._replace(crop=1)
    return list(batches.batches(data, np.asarray(order), settings, mean, std, **arguments))


def test_batches_are_padded_and_keyed_by_image(tmp_path):
    data = _set(tmp_path)
    assert batches.most_objects(data) == 1
    (batch,) = _batches(data, [[0, 1, 2]])
    assert batch["image"].shape == (3, 96, 96, 3) and batch["image"].dtype == np.float32
    assert batch["valid"].tolist() == [[False, False], [True, False], [True, False]]
    assert batch["label"].tolist() == [[0, 0], [1, 0], [2, 0]]
    for i, (height, width) in enumerate(batch["size"]):
        assert not batch["image"][i, height:].any() and not batch["image"][i, :, width:].any()
        if i:
            np.testing.assert_allclose(batch["boxes"][i, 0], _bright(batch["image"][i]), atol=1.6)
    # The same images at other places of the epoch.
    other = _batches(data, [[2, 1], [0, 0]])
    for name in ("image", "boxes", "size"):
        np.testing.assert_array_equal(other[0][name], batch[name][[2, 1]])
    (later,) = _batches(data, [[0, 1, 2]], epoch=4)
    assert (later["size"] != batch["size"]).any() or (later["boxes"] != batch["boxes"]).any()


def test_refusals(tmp_path):
    data = _set(tmp_path)
    with pytest.raises(UserError, match=r"1\.png: 1 objects; there is room for 0"):
        _batches(data, [[1]], objects=0)
    wrong = data.images[0]._replace(height=41)
    with pytest.raises(UserError, match="56x40 pixels, but its annotation is for 56x41"):
        _batches(AnnotatedSet((wrong,), data.class_names), [[0]])


def test_evaluation_draws_nothing():
    settings = batches.evaluated(SETTINGS)
    assert (settings.crop, settings.flip, settings.min_sizes) == (1.0, 0.0, (60,))
    assert batches.canvas(settings) == (96, 96)
