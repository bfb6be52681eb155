"""The four kinds of sources, and what each says about bad data."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from kdjax.data.sources import open_source
from kdjax.errors import UserError
from tests.data.conftest import tfds_picture, write_folder


def fails(source, data_dir=""):
    """The message of the UserError that opening `source` raises: always one line."""
    with pytest.raises(UserError) as caught:
        open_source(source, str(data_dir))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_importing_data_is_light():
    code = (
        "import sys, kdjax.data; "
        "print([m for m in ('tensorflow_datasets', 'grain', 'sklearn') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_unknown_sources():
    assert "config.data.source='cifar100'" in fails("cifar100")
    assert "nearest: digits" in fails("digit")
    assert "nearest: folder" in fails("folders:/x")
    assert "write digits, tfds:NAME" in fails("tfds:")


# digits


def test_digits():
    source = open_source("digits")
    train, test = source.train, source.test
    assert train.images.shape == (1437, 32, 32, 3)
    assert test.images.shape == (360, 32, 32, 3)
    assert train.images.dtype == np.uint8
    assert train.labels.dtype == np.int32
    assert source.class_names == tuple("0123456789")
    # Stratified: each class has 174 to 183 images, a fifth of them in the test.
    assert set(np.bincount(test.labels)) <= {35, 36, 37}
    again = open_source("digits")
    np.testing.assert_array_equal(test.images, again.test.images)
    assert train.images.max() > 250
    assert train.images.min() == 0


# folder


def test_folder(folder):
    (folder / "train" / ".hidden").mkdir()
    (folder / "train" / "ant" / "notes.txt").write_text("not an image")
    (folder / "train" / "ant" / "._0.jpg").write_bytes(b"")
    (folder / "train" / "ant" / "3.jpg").rename(folder / "train" / "ant" / "3.JPEG")
    source = open_source(f"folder:{folder}")
    assert source.name == "same"
    assert source.class_names == ("ant", "bee", "cat")
    np.testing.assert_array_equal(source.train.labels, np.repeat([0, 1, 2], 4))
    assert source.train.labels.dtype == np.int32
    image = source.train.records[5]
    assert image.shape == (40, 30, 3)
    with Image.open(folder / "train" / "bee" / "1.jpg") as stored:
        np.testing.assert_array_equal(image, np.asarray(stored))
    assert source.train.records.common_shape() == (40, 30, 3)
    copy = pickle.loads(pickle.dumps(source.train.records))
    np.testing.assert_array_equal(copy[5], image)


def test_folder_with_uneven_images_and_val(uneven_folder):
    source = open_source(f"folder:{uneven_folder}")
    assert len(source.test.labels) == 12
    assert source.train.records.common_shape() is None
    assert source.train.records[1].shape == (25, 50, 3)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_folder_images_become_rgb(folder, mode):
    file = folder / "train" / "ant" / ("0.jpg" if mode == "CMYK" else "0.png")
    Image.new(mode, (30, 40)).save(file)
    assert open_source(f"folder:{folder}").train.records[0].shape == (40, 30, 3)


def test_folder_errors(tmp_path):
    root = tmp_path / "set"
    assert "no such folder" in fails(f"folder:{root}")
    root.mkdir()
    assert "no train/" in fails(f"folder:{root}")
    (root / "train").mkdir()
    assert "neither test/ nor val/" in fails(f"folder:{root}")
    (root / "val").mkdir()
    assert "no class folders" in fails(f"folder:{root}")
    (root / "train" / "ant").mkdir()
    assert f"{root / 'train' / 'ant'}: no images" in fails(f"folder:{root}")


def test_folder_classes_must_agree(folder):
    (folder / "test" / "cat").rename(folder / "test" / "dog")
    message = fails(f"folder:{folder}")
    assert "first that differs: cat" in message
    assert "3 classes against 3 in train/" in message


def test_folder_image_that_vanished(folder):
    records = open_source(f"folder:{folder}").train.records
    (folder / "train" / "ant" / "0.jpg").unlink()
    with pytest.raises(UserError, match=r"0\.jpg: cannot be read"):
        records[0]
    with pytest.raises(UserError, match=r"0\.jpg: unreadable"):
        records.common_shape()


# arrays


def arrays(size=6, classes=3, **changes):
    images = np.arange(size * 48).reshape(size, 4, 4, 3).astype(np.uint8)
    stored = {"image": images, "label": np.arange(size) % classes}
    return {**stored, **changes}


def four_keys(train, test):
    return {
        "train_images": train["image"],
        "train_labels": train["label"],
        "test_images": test["image"],
        "test_labels": test["label"],
    }


@pytest.mark.parametrize("held_out", ["test", "val", None])
def test_arrays(tmp_path, held_out):
    train, test = arrays(), arrays(3)
    if held_out:
        file = tmp_path / "shapes_train.npz"
        np.savez(file, **train)
        np.savez(tmp_path / f"shapes_{held_out}.npz", **test, mask=np.zeros(3))
    else:
        file = tmp_path / "shapes.npz"
        np.savez(file, **four_keys(train, test))
    source = open_source(f"arrays:{file}")
    assert source.name == "shapes"
    assert source.class_names == ("0", "1", "2")
    np.testing.assert_array_equal(source.train.images, train["image"])
    np.testing.assert_array_equal(source.test.labels, test["label"])
    assert source.train.labels.dtype == source.test.labels.dtype == np.int32


def test_arrays_missing_files_and_keys(tmp_path):
    file = tmp_path / "shapes_train.npz"
    assert "no such file" in fails(f"arrays:{file}")
    np.savez(file, **arrays())
    assert "no shapes_test.npz or shapes_val.npz beside it" in fails(f"arrays:{file}")
    assert "in that folder: shapes_train.npz" in fails(f"arrays:{tmp_path / 'shapes.npz'}")
    np.savez(tmp_path / "shapes_test.npz", image=arrays()["image"])
    assert "shapes_test.npz: holds image, needs image and label" in fails(f"arrays:{file}")
    np.savez(tmp_path / "one.npz", **arrays())
    assert "holds one split only" in fails(f"arrays:{tmp_path / 'one.npz'}")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    assert "holds x; needs train_images" in fails(f"arrays:{tmp_path / 'other.npz'}")


def test_arrays_unreadable_files(tmp_path):
    text, cut, pickled, single = (tmp_path / f"{n}.npz" for n in "abcd")
    text.write_text("hello")
    np.savez(cut, **four_keys(arrays(), arrays()))
    cut.write_bytes(cut.read_bytes()[:300])
    np.savez(pickled, image=np.array([object()], dtype=object), label=np.zeros(1, int))
    with single.open("wb") as stream:
        np.save(stream, np.zeros(3))
    for file in (text, cut, pickled, single):
        assert f"{file}: not a readable .npz file" in fails(f"arrays:{file}")


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ({"label": np.array([0, 1, 2, 0, 1, -1])}, {}, "label -1 is outside 0..2"),
        ({"label": np.array([0, 1, 3, 0, 1, 3])}, {}, "1 of 4 classes have no image"),
        ({}, {"label": np.array([0, 1, 3, 0, 1, 3])}, "4 classes in its test split but 3"),
        ({}, {"label": np.array([0, 1, 1, 0, 1, 1])}, "2 classes in its test split but 3"),
        ({}, {"label": np.array([0, -1, 2, 0, 1, 2])}, "label -1 is outside 0..2"),
        ({"label": np.arange(6.0)}, {}, "float64 [6], needs integers [N]"),
        ({"label": np.zeros((6, 3), int)}, {}, "int64 [6, 3], needs integers [N]"),
        ({"image": np.zeros((6, 4, 4, 3))}, {}, "float64 [6, 4, 4, 3], needs uint8 [N, H, W, C]"),
        ({"image": np.zeros((6, 4, 4), np.uint8)}, {}, "uint8 [6, 4, 4], needs uint8 [N"),
        ({"image": np.zeros((5, 4, 4, 3), np.uint8)}, {}, "5 images in image but 6 labels"),
        ({}, {"image": np.zeros((6, 5, 4, 3), np.uint8)}, "resize them to one size"),
        ({"image": np.zeros((0, 4, 4, 3), np.uint8), "label": np.zeros(0, int)}, {}, "no images"),
        ({}, {"image": np.zeros((0, 4, 4, 3), np.uint8), "label": np.zeros(0, int)}, "no images"),
    ],
)
def test_arrays_malformed(tmp_path, train, test, message):
    np.savez(tmp_path / "shapes_train.npz", **arrays(**train))
    np.savez(tmp_path / "shapes_test.npz", **arrays(**test))
    assert message in fails(f"arrays:{tmp_path / 'shapes_train.npz'}")


# tfds


def check_tiny_squares(source):
    assert source.class_names == ("red", "green", "blue")
    assert len(source.train.labels) == 12
    assert len(source.test.labels) == 6
    np.testing.assert_array_equal(np.bincount(source.train.labels), [4, 4, 4])
    for split in (source.train, source.test):
        assert split.labels.dtype == np.int32
        assert split.records.common_shape() == (8, 8, 3)
        copy = pickle.loads(pickle.dumps(split.records))
        assert len(copy) == len(split.labels)
        for index, label in enumerate(split.labels):
            np.testing.assert_array_equal(copy[index], tfds_picture(label))


@pytest.mark.parametrize("in_memory", [True, False])
def test_tfds(prepared_tfds, in_memory, monkeypatch):
    if not in_memory:
        monkeypatch.setattr("kdjax.data.tfds_source.IN_MEMORY_BYTES", -1)
    check_tiny_squares(open_source("tfds:tiny_squares", str(prepared_tfds)))


def test_tfds_unknown_name(tmp_path):
    assert "nearest: cifar100" in fails("tfds:cifr100", tmp_path)
    assert "TFDS cannot open it" in fails("tfds:cifar100:9.9.9", tmp_path)
    assert "TFDS cannot open it" in fails("tfds:cifar 100", tmp_path)


def test_tfds_not_prepared_says_what_to_run(tmp_path):
    message = fails("tfds:cifar100", tmp_path)
    assert f"not prepared in {tmp_path}" in message
    assert "pip install 'kdjax[prepare]' && python -c" in message
    call = f"tfds.builder('cifar100', data_dir='{tmp_path}', file_format='array_record')"
    assert f"{call}.download_and_prepare()" in message


def test_tfds_in_another_file_format(edited_tfds):
    data_dir = edited_tfds(info=lambda info: info.update(fileFormat="tfrecord"))
    message = fails("tfds:tiny_squares", data_dir)
    assert "is prepared as tfrecord" in message
    assert "kdjax reads array_record" in message


def test_tfds_without_a_test_split(edited_tfds):
    def keep_train(info):
        info["splits"] = [split for split in info["splits"] if split["name"] == "train"]

    message = fails("tfds:tiny_squares", edited_tfds(info=keep_train))
    assert "no labeled test or validation split (it has train)" in message


def test_tfds_validation_stands_in_for_test(edited_tfds):
    def rename(info):
        for split in info["splits"]:
            if split["name"] == "test":
                split["name"] = "validation"

    data_dir = edited_tfds(info=rename)
    version = data_dir / "tiny_squares" / "1.0.0"
    for file in version.glob("*-test.*"):
        file.rename(file.with_name(file.name.replace("-test.", "-validation.")))
    check_tiny_squares(open_source("tfds:tiny_squares", str(data_dir)))


def test_tfds_without_a_label(edited_tfds):
    def rename(features):
        inner = features["featuresDict"]["features"]
        inner["digit"] = inner.pop("label")

    message = fails("tfds:tiny_squares", edited_tfds(features=rename))
    assert "needs the features image and label" in message


@pytest.mark.skipif("KDJAX_DATA" not in os.environ, reason="KDJAX_DATA names no prepared folder")
def test_tfds_cifar100():
    source = open_source("tfds:cifar100", os.path.join(os.environ["KDJAX_DATA"], "tfds"))
    assert len(source.train.labels) == 50000
    assert len(source.test.labels) == 10000
    assert len(source.class_names) == 100
    assert source.class_names[0] == "apple"
    assert (np.bincount(source.train.labels) == 500).all()
    assert (np.bincount(source.test.labels) == 100).all()
    sample = np.stack([source.train.records[i] for i in range(0, 50000, 50)])
    assert sample.shape == (1000, 32, 32, 3)
    np.testing.assert_allclose(sample.mean(axis=(0, 1, 2)) / 255, [0.507, 0.487, 0.441], atol=0.02)


def test_folder_helper_is_deterministic(tmp_path):
    first, second = (
        open_source(f"folder:{write_folder(tmp_path / name)}").train.records[7]
        for name in ("a", "b")
    )
    np.testing.assert_array_equal(first, second)
