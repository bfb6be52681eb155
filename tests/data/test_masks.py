"""Images with masks from files and folders, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from kdjax import config as configs
from kdjax import data
from kdjax.data import masks as data_masks
from kdjax.data.splits import ArraySplit
from kdjax.errors import UserError
from tests.tiny_runs import masks as tiny
from tests.tiny_runs.masks import write, write_layout


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


def test_arrays_with_masks(tmp_path):
    dataset = data.load(configured(tiny.write_arrays(tmp_path / "it.npz")))
    images, masks = tiny.images_and_masks(16)
    assert dataset.has_masks and dataset.image_shape == (12, 12, 3)
    assert dataset.class_names == ("ground", "square", "other")
    np.testing.assert_array_equal(dataset.train.masks, masks)
    np.testing.assert_array_equal(dataset.train.sizes, np.full((16, 2), 12))
    np.testing.assert_allclose(dataset.mean, images.mean((0, 1, 2)) / 255, rtol=1e-5)


def test_pairs_of_files_and_another_ignored_value(tmp_path):
    for seed, split in enumerate(("train", "val")):
        images, masks = tiny.images_and_masks(4, seed=seed)
        masks[masks == 255] = 3
        np.savez(tmp_path / f"it_{split}.npz", image=images, mask=masks)
    source = f"arrays:{tmp_path / 'it_train.npz'}"
    dataset = data.load(configured(source, ignored=3))
    assert dataset.class_names == ("0", "1", "2")
    assert set(np.unique(dataset.test.masks)) == {0, 1, 2, 255}
    assert "config.data.ignored=2; needs 2 to 255" in refused(source, ignored=2)
    assert data.load(configured(source)).num_classes == 4


def test_the_split_that_is_evaluated_and_names_of_classes(tmp_path):
    for seed, split in enumerate(("train", "val", "test")):
        images, masks = tiny.images_and_masks(4, seed=seed)
        np.savez(tmp_path / f"it_{split}.npz", image=images, mask=masks)
    source = f"arrays:{tmp_path / 'it_train.npz'}"
    for test_split, seed in (("", 2), ("test", 2), ("val", 1)):
        dataset = data.load(configured(source, test_split=test_split, class_names=("a", "b", "c")))
        np.testing.assert_array_equal(dataset.test.masks, tiny.images_and_masks(4, seed=seed)[1])
        assert dataset.class_names == ("a", "b", "c")
    assert "has 2 names, 2 of them different; " in refused(source, class_names=("a", "b"))
    assert "has 3 names, 2 of them different; " in refused(source, class_names=("a", "b", "b"))
    (tmp_path / "it_val.npz").unlink()
    assert "no it_val.npz beside it" in refused(source, test_split="val")
    both = tiny.write_arrays(tmp_path / "both.npz")
    assert "both.npz holds both splits" in refused(both, test_split="val")
    assert "config.data.test_split='val' has no effect" in refused("digits", test_split="val")

    write_layout(tmp_path / "folders", "folders")
    source = f"masks:{tmp_path / 'folders'}"
    assert f"{tmp_path / 'folders' / 'val' / 'images'}: no such" in refused(
        source, test_split="val"
    )
    (tmp_path / "folders" / "test").rename(tmp_path / "folders" / "val")
    assert len(data.load(configured(source, test_split="val")).test.masks) == 2
    write_layout(tmp_path / "voc", "voc")
    assert "is laid out as voc is" in refused(f"masks:{tmp_path / 'voc'}", test_split="val")


def test_larger_images_are_scaled_down_to_the_canvas_and_padded(tmp_path):
    source = tiny.write_arrays(tmp_path / "it.npz")
    dataset = data.load(configured(source, canvas=(8, 6)))
    assert dataset.image_shape == (8, 6, 3)
    np.testing.assert_array_equal(dataset.train.sizes, np.full((16, 2), 6))
    assert (dataset.train.masks[:, 6:] == 255).all() and not dataset.train.images[:, 6:].any()
    assert (dataset.train.masks[:, 1:6] < 3).all()
    whole = data.load(configured(source))
    np.testing.assert_allclose(dataset.mean, whole.mean, atol=0.02)
    for changes in ({"classes": 2}, {"first_class": 1}):
        assert "every pixel has a class" in refused(source, **changes)


@pytest.mark.parametrize(
    ("layout", "classes", "present"),
    [
        ("folders", 2, {0, 1, 255}),
        ("voc", 21, {0, 1, 255}),
        ("cityscapes", 19, {0, 1, 255}),
        ("ade20k", 150, {0, 149, 255}),
    ],
)
def test_layouts_of_folders(tmp_path, layout, classes, present):
    last = write_layout(tmp_path, layout)
    for chosen in ("", layout):
        dataset = data.load(configured(f"masks:{tmp_path}", layout=chosen))
        assert dataset.num_classes == classes and dataset.image_shape == (12, 12, 3)
        np.testing.assert_array_equal(dataset.test.sizes, [[12, 12], [9, 12]])
        assert set(np.unique(dataset.test.masks[1])) == present
    shown = dataset.test.masks[1, :9]
    assert (dataset.test.masks[1, 9:] == 255).all()
    for value in np.unique(last):  # a value of the file is one class throughout
        assert len(np.unique(shown[last == value])) == 1


def test_bad_masks_are_refused_in_a_line(tmp_path):
    source = f"masks:{tmp_path}"
    write_layout(tmp_path, "folders")
    mask = tmp_path / "train" / "masks" / "train_0.png"
    good = mask.read_bytes()
    write(mask, np.zeros((5, 12), np.uint8))
    assert "train_0.png: the mask has 5x12 pixels, its image 12x12" in refused(source)
    write(mask, np.full((12, 12), 2, np.uint8))
    assert "train_0.png: value 2 is no class; there are 0..1, and 255" in refused(source)
    write(mask, np.zeros((12, 12, 3), np.uint8))
    assert "train_0.png: a mask has one value of 0..255 for each pixel" in refused(source)
    mask.write_bytes(good[:60])
    assert "train_0.png: unreadable image" in refused(source)
    mask.unlink()
    (mask.parent / "train_0.txt").write_text("notes")
    assert "no mask train_0.png" in refused(source)
    (tmp_path / "classes.txt").unlink()
    mask.write_bytes(good)
    assert "classes.txt: missing; write the names" in refused(source)
    assert "has no JPEGImages/ in it" in refused(source, layout="voc")
    assert "no such folder" in refused(f"masks:{tmp_path / 'nowhere'}")


def test_files_that_a_list_names_and_are_missing(tmp_path):
    write_layout(tmp_path, "voc")
    source = f"masks:{tmp_path}"
    mask = tmp_path / "SegmentationClass" / "held_1.png"
    content = mask.read_bytes()
    mask.unlink()
    assert str(mask) in refused(source)
    mask.write_bytes(content)
    image = tmp_path / "JPEGImages" / "train_0.jpg"
    image.unlink()
    assert str(image) in refused(source)


def test_bad_arrays_and_settings_are_refused_in_a_line(tmp_path):
    images, masks = tiny.images_and_masks(4)
    file = tmp_path / "it.npz"
    source = f"arrays:{file}"

    def saved(**changes):
        both = {"train_images": images, "train_masks": masks} | {
            "test_images": images,
            "test_masks": masks,
        }
        np.savez(file, **(both | changes))
        return source

    assert "train_masks [4, 11, 12] are masks of another size" in refused(
        saved(train_masks=masks[:, 1:])
    )
    assert "4 images in train_images but 3 labels" in refused(saved(train_masks=masks[:3]))
    assert "train_masks is int64" in refused(saved(train_masks=masks.astype(np.int64)))
    assert "(test): value 9 is no class" in refused(saved(test_masks=np.full_like(masks, 9)))
    for split, name in (("train", "training"), ("test", "test")):
        changed = {"class_names": np.array(["a", "b", "c"]), f"{split}_masks": masks * 0 + 255}
        assert f"no pixel of the {name} masks has a class" in refused(saved(**changed))
    saved()
    assert "needs train_images, train_masks" in refused(_without(file, "test_masks"))
    saved()
    assert "set config.data.canvas=(height, width)" in refused(source, image_size=8)
    assert "config.data.classes=2: images" in refused(source, classes=2)
    assert "config.data.canvas=(8,): give height and width" in refused(source, canvas=(8,))
    assert "config.data.canvas=(8, 8) is for images with masks" in refused("digits", canvas=(8, 8))
    assert "config.data.ignored=3 has no effect" in refused("digits", ignored=3)


def _without(file, name: str) -> str:
    with np.load(file) as stored:
        arrays = {key: value for key, value in stored.items() if key != name}
    np.savez(file, **arrays)
    return f"arrays:{file}"


def test_masks_of_arrays_are_named_by_their_numbers():
    images, masks = np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 3, 4), np.uint8)
    pairs = data_masks.CanvasPairs(ArraySplit(images, np.zeros(2, np.int32), masks), (4, 4, 3))
    with pytest.raises(UserError, match=r"masks\[1\]: the mask has 3x4 pixels, its image 4x4"):
        pairs(1)
