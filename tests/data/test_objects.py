"""Images with objects in boxes: folders, the canvas, augmentation, batches, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from kdjax import config as configs
from kdjax import data
from kdjax.data import stream
from kdjax.data.objects import augmentation, canvas
from kdjax.errors import UserError
from tests.tiny_runs import boxes as tiny

AUGMENTATION = augmentation.Augmentation(crop=0.6, flip=0.5, min_sizes=(40, 60), max_size=96)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny.write_folder(tmp_path_factory.mktemp("objects") / "tiny")


def configured(source: str, **changes):
    config = configs.base()
    config.data.source, config.data.augmentation = source, "none"
    for name, value in changes.items():
        config.data[name] = value
    return config


def refused(source: str, **changes) -> str:
    with pytest.raises(UserError) as caught:
        data.load(configured(source, **changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _marked(height=40, width=56):
    """A dark image whose box is bright."""
    pixels = np.zeros((height, width, 3), np.float32)
    box = np.array([[24, 12, 40, 28]], np.float32)
    pixels[12:28, 24:40] = 255
    return pixels, box


def _bright(pixels):
    """The box around what is bright."""
    rows, columns = np.nonzero(pixels[..., 0] > 127)
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


def test_augmented_boxes_stay_on_their_objects_and_images_on_the_canvas():
    pixels, box = _marked()
    shapes = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        changed, boxes, kept = augmentation.augment(pixels, box, AUGMENTATION, rng, (64, 80))
        shapes.add(changed.shape)
        assert changed.shape[0] <= 64 and changed.shape[1] <= 80
        if kept[0]:
            # Interpolation blurs an edge by half a pixel of the enlarged image.
            np.testing.assert_allclose(boxes[0], _bright(changed), atol=1.6)
    assert len(shapes) > 20


def test_a_folder_in_yolos_format(source):
    dataset = data.load(configured(source))
    assert dataset.has_objects and not dataset.has_masks
    assert dataset.image_shape == (64, 64, 3) and dataset.class_names == tiny.CLASS_NAMES
    assert len(dataset.train.labels) == 8 and len(dataset.test.labels) == 3
    assert dataset.train.objects.most == 2
    assert np.diff(dataset.train.objects.starts).tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert (dataset.mean > 0.1).all() and (dataset.mean < 0.4).all()


def batches(dataset, order, **changes):
    arguments = {"epoch": 1, "seed": 3, "shape": (96, 96, 3), "augmentation": AUGMENTATION}
    return list(stream.object_train_batches(dataset.train, np.array(order), **arguments | changes))


def test_batches_are_padded_and_keyed_by_place(source):
    dataset = data.load(configured(source))
    order = [[0, 1, 2], [2, 5, 1]]
    first, second = batches(dataset, order)
    assert first["image"].shape == (3, 96, 96, 3) and first["image"].dtype == np.uint8
    assert first["index"].tolist() == [0, 1, 2] and first["valid"].shape == (3, 2)
    assert not first["valid"][0].any()  # an image without objects is there all the same
    for image, (height, width), boxes, valid, classes in zip(
        *(first[name] for name in ("image", "sizes", "boxes", "valid", "classes")), strict=True
    ):
        assert not image[height:].any() and not image[:, width:].any()
        for x1, y1, x2, y2 in boxes[valid].round().astype(int):
            assert image[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].max(-1).mean() > 180
        assert (classes[valid] > 0).all() and not boxes[~valid].any()
    # Read from the second step on, and by half of a batch at a time, the same bits come out.
    (resumed,) = batches(dataset, order, first_step=1)
    parts = [batches(dataset, order, columns=columns)[1] for columns in (slice(1), slice(1, 3))]
    for name, value in second.items():
        np.testing.assert_array_equal(resumed[name], value)
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), value)
    later = batches(dataset, order, epoch=2)[0]
    assert (later["sizes"] != first["sizes"]).any() or (later["boxes"] != first["boxes"]).any()


def test_evaluation_draws_nothing(source):
    split = data.load(configured(source)).test
    load = canvas.EvaluationElement(split, (96, 96, 3), AUGMENTATION)
    element = load(1)
    assert element["sizes"].tolist() == [60, 80] and element["index"] == 1
    np.testing.assert_array_equal(element["image"], load(1)["image"])
    boxes, labels = canvas.placed(split, 1, element["sizes"])
    stored, stored_labels, _ = split.objects.of(1)
    np.testing.assert_allclose(boxes, stored * 1.25, rtol=1e-6)
    np.testing.assert_array_equal(labels, stored_labels)


def test_a_fraction_of_the_images_keeps_its_objects(source):
    whole, part = (data.load(configured(source, train_fraction=f)).train for f in (1.0, 0.5))
    assert len(part.labels) == 4
    for number, index in enumerate(part.records.indices):
        for mine, theirs in zip(part.objects.of(number), whole.objects.of(index), strict=True):
            np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_array_equal(part.records[number], whole.records[index])


def test_folders_of_coco(tmp_path):
    (tmp_path / "annotations").mkdir()
    for split, folder in (("train2017", "train2017"), ("val2017", "images/val2017")):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / folder / "a.jpg")
        content = {
            "images": [{"id": 1, "file_name": "a.jpg", "height": 30, "width": 40}],
            "annotations": [{"image_id": 1, "category_id": 5, "bbox": [1, 2, 60, 4]}],
            "categories": [{"id": 5, "name": "dog"}],
        }
        file = tmp_path / "annotations" / f"instances_{split}.json"
        file.write_text(json.dumps(content))
    source = f"coco:{tmp_path}"
    assert "is outside its image of 40x30" in refused(source)
    dataset = data.load(configured(source, bad_boxes="drop"))
    assert dataset.train.objects.boxes.tolist() == [[1, 2, 40, 6]]
    file.write_text(json.dumps(content | {"categories": [{"id": 5, "name": "cat"}]}))
    assert "classes of training and test annotations" in refused(source, bad_boxes="drop")
    file.rename(file.with_name("instances_trainval2017.json"))
    assert "are both for train; leave one" in refused(source)


def _voc_year(root, lists):
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for split, names in lists.items():
        (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(names))
        for name in names:
            Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(root / f"JPEGImages/{name}.jpg")
            box = "<xmin>2</xmin><ymin>3</ymin><xmax>9</xmax><ymax>8</ymax>"
            (root / f"Annotations/{name}.xml").write_text(
                "<annotation><size><height>30</height><width>40</width></size>"
                f"<object><name>dog</name><bndbox>{box}</bndbox></object></annotation>"
            )


def test_folders_of_voc(tmp_path):
    _voc_year(tmp_path / "VOC2007", {"trainval": ["a", "b"], "test": ["c"]})
    _voc_year(tmp_path / "VOC2012", {"trainval": ["d"]})
    dataset = data.load(configured(f"voc:{tmp_path}"))
    assert len(dataset.train.labels) == 3 and len(dataset.test.labels) == 1
    assert dataset.num_classes == 20 and dataset.train.objects.boxes[2].tolist() == [1, 2, 9, 8]
    one = data.load(configured(f"voc:{tmp_path / 'VOC2007'}"))
    assert len(one.train.labels) == 2
    (tmp_path / "VOC2007/classes.txt").write_text("cat\nrat")
    assert "the class 'dog' is none of the 2 classes" in refused(f"voc:{tmp_path / 'VOC2007'}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 32}, "config.data.image_size=32: images of"),
        ({"classes": 2}, "leave it at 0: an image has objects of several classes"),
        ({"placement": "device"}, "images with objects are streamed"),
        ({"canvas": (64, 60)}, "in multiples of 32"),
        ({"ignored": 3}, "config.data.ignored=3 has no effect"),
    ],
)
def test_settings_that_do_not_go_with_objects(source, changes, message):
    assert message in refused(source, **changes)


def test_broken_folders_are_refused(tmp_path):
    assert "no such folder" in refused(f"yolo:{tmp_path / 'none'}")
    tiny.write_folder(tmp_path, train=2, test=1)
    assert "the test images have no objects at all" in refused(f"yolo:{tmp_path}")
    (tmp_path / "labels/val/000.txt").write_text("7 .5 .5 .2 .2")
    assert "the class 7 is none of the 2 classes" in refused(f"yolo:{tmp_path}")
    (tmp_path / "labels/val/000.txt").write_text("1 .5 .5 .2 0")
    assert "the box" in (text := refused(f"yolo:{tmp_path}")) and "is empty" in text
    (tmp_path / "classes.txt").unlink()
    assert "classes.txt: missing" in refused(f"yolo:{tmp_path}")


def test_an_image_of_another_size_than_annotated(tmp_path):
    dataset = data.load(configured(tiny.write_folder(tmp_path)))
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "images/train/001.png")
    with pytest.raises(UserError, match=r"001\.png: 30x20 pixels, but its annotation is for 64x48"):
        batches(dataset, [[1]])


@pytest.mark.slow
def test_worker_processes_make_the_same_batches(source):
    dataset = data.load(configured(source))
    here, there = (batches(dataset, [[0, 1], [2, 5]], workers=workers) for workers in (0, 1))
    for one, other in zip(here, there, strict=True):
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name])
