"""COCO, VOC and YOLO files: what is read, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from kdjax.data.objects.annotations import Object, annotated
from kdjax.data.objects.coco_json import read_coco
from kdjax.data.objects.voc_xml import read_voc
from kdjax.data.objects.yolo_text import read_yolo
from kdjax.errors import UserError

HEIGHT, WIDTH = 30, 40


def _image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(path)


def _coco():
    """Two images; the second has no objects."""
    size = {"height": HEIGHT, "width": WIDTH}
    return {
        "images": [
            {"id": 7, "file_name": "a.jpg", **size},
            {"id": 9, "file_name": "b.jpg", **size},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [2, 3, 10, 20.5], "area": 99},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [0, 0, 40, 30], "iscrowd": 1},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
    }


def _read_coco(folder, content, **settings):
    for name in ("a", "b"):
        _image(folder / "images" / f"{name}.jpg")
    (folder / "instances.json").write_text(json.dumps(content))
    return read_coco(folder / "instances.json", folder / "images", **settings)


def test_coco(tmp_path):
    data = _read_coco(tmp_path, _coco())
    assert data.class_names == ("car", "dog")
    first, second = data.images
    np.testing.assert_array_equal(first.boxes, [[2, 3, 12, 23.5], [0, 0, 40, 30]])
    assert first.labels.tolist() == [2, 1]
    assert first.areas.tolist() == [99, 1200]
    assert first.ignored.tolist() == [False, True]
    assert second.boxes.shape == (0, 4) and second.labels.shape == (0,)


def _edited(**changes):
    content = _coco()
    content["annotations"][0] |= changes
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_edited(bbox=[2, 3, 0, 5]), "annotation 1: the box 2 3 2 8 is empty"),
        (_edited(bbox=[35, 3, 10, 5]), "annotation 1: the box 35 3 45 8 is outside its image of"),
        (_edited(bbox=[2, 3, 10]), "'bbox' is"),
        (_edited(bbox=[2, 3, float("nan"), 5]), "four finite numbers"),
        (_edited(category_id=5), "no class has the id 5"),
        (_edited(image_id=5), "no image has the id 5"),
        (_coco() | {"images": [{"id": 1}]}, "entry 0 of 'images' has no 'file_name'"),
        (_coco() | {"annotations": 3}, "no list 'annotations'"),
        ([], "no list 'images'"),
        (_coco() | {"categories": []}, "lists no images or no categories"),
    ],
)
def test_coco_refusals(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as error:
        _read_coco(tmp_path, content)
    assert "instances.json" in str(error.value) and "\n" not in str(error.value)


def test_missing_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"missing\.json: cannot be read"):
        read_coco(tmp_path / "missing.json", tmp_path)
    content = _coco()
    content["images"][0]["file_name"] = "c.jpg"
    with pytest.raises(UserError, match=r"image 7: the image .*c\.jpg is missing"):
        _read_coco(tmp_path, content)
    (tmp_path / "instances.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        read_coco(tmp_path / "instances.json", tmp_path)


def test_bad_boxes_are_dropped_if_so_wished(tmp_path):
    data = _read_coco(tmp_path, _edited(bbox=[2, 3, 0, 5]), bad_boxes="drop")
    assert data.images[0].labels.tolist() == [1]
    data = _read_coco(tmp_path, _edited(bbox=[35, 3, 10, 5]), bad_boxes="drop")
    np.testing.assert_array_equal(data.images[0].boxes[0], [35, 3, 40, 8])
    with pytest.raises(UserError, match="use refuse or drop"):
        _read_coco(tmp_path, _coco(), bad_boxes="keep")


def test_boxes_may_leave_their_image_by_rounding(tmp_path):
    item = Object((-0.4, 0, 10, HEIGHT + 0.4), 1, "here")
    image = annotated(tmp_path, HEIGHT, WIDTH, [item])
    np.testing.assert_array_equal(image.boxes, [[0, 0, 10, HEIGHT]])


XML = """<annotation><size><width>40</width><height>30</height></size>
<object><name>{name}</name><difficult>1</difficult><part><bndbox><xmin>4</xmin></bndbox></part>
<bndbox><xmin>{xmin}</xmin><ymin>2</ymin><xmax>40</xmax><ymax>30</ymax></bndbox></object>
</annotation>"""


def _read_voc(folder, xml=None, names="a b"):
    for name in ("a", "b"):
        _image(folder / "JPEGImages" / f"{name}.jpg")
    (folder / "Annotations").mkdir()
    (folder / "Annotations" / "a.xml").write_text(xml or XML.format(name="dog", xmin=1))
    empty = "<annotation><size><width>40</width><height>30</height></size></annotation>"
    (folder / "Annotations" / "b.xml").write_text(empty)
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "train.txt").write_text(names)
    return read_voc(folder, "train")


def test_voc(tmp_path):
    data = _read_voc(tmp_path)
    first, second = data.images
    np.testing.assert_array_equal(first.boxes, [[0, 1, 40, 30]])
    assert data.class_names[first.labels[0] - 1] == "dog"
    assert first.ignored.tolist() == [True] and not len(second.boxes)


@pytest.mark.parametrize(
    ("xml", "names", "message"),
    [
        (XML.format(name="unicorn", xmin=1), "a", "the class 'unicorn' is none of the 20"),
        (XML.format(name="dog", xmin=41), "a", "object 1: the box 40 1 40 30 is empty"),
        (XML.format(name="dog", xmin="x"), "a", "bndbox/xmin is 'x', not a number"),
        ("<annotation>", "a", "not XML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><annotation/>', "a", "declares entities"),
        (None, "", "lists no images"),
        (None, "c", r"c\.xml: cannot be read"),
    ],
)
def test_voc_refusals(tmp_path, xml, names, message):
    with pytest.raises(UserError, match=message):
        _read_voc(tmp_path, xml, names)


def _read_yolo(folder, text):
    for name in ("a", "b"):
        _image(folder / "images" / f"{name}.png")
    (folder / "labels").mkdir()
    (folder / "labels" / "a.txt").write_text(text)
    return read_yolo(folder / "images", folder / "labels", ["cat", "dog"])


def test_yolo(tmp_path):
    data = _read_yolo(tmp_path, "1 0.5 0.5 0.25 0.2\n\n0 0.1 0.5 0.2 1\n")
    first, second = data.images
    np.testing.assert_allclose(first.boxes, [[15, 12, 25, 18], [0, 0, 8, 30]], atol=1e-5)
    assert first.labels.tolist() == [2, 1] and not len(second.boxes)
    assert (first.height, first.width) == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2 0.5 0.5 0.1 0.1", r"a\.txt, line 1: the class 2 is none of the 2 classes"),
        ("0 0.5 0.5 0.1", "is not a class and center"),
        ("cat 0.5 0.5 0.1 0.1", "is not a class and center"),
        ("0 0.5 0.5 0 0.1", "is empty"),
        ("0 1.5 0.5 0.1 0.1", "outside its image of 40x30"),
        ("0 nan 0.5 0.1 0.1", "four finite numbers"),
    ],
)
def test_yolo_refusals(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        _read_yolo(tmp_path, text)
