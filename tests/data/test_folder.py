"""Image folders: layouts, classes, files that are no images."""

import os
import pickle

import numpy as np
import pytest
from PIL import Image

from kdjax.errors import UserError
from tests.data.conftest import fails, opened, write_folder


def test_folder(folder):
    (folder / "train" / ".hidden").mkdir()
    (folder / "train" / "ant" / "notes.txt").write_text("not an image")
    (folder / "train" / "ant" / "._0.jpg").write_bytes(b"")
    (folder / "train" / "ant" / "3.jpg").rename(folder / "train" / "ant" / "3.JPEG")
    source = opened(f"folder:{folder}")
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
    source = opened(f"folder:{uneven_folder}")
    assert len(source.test.labels) == 12
    assert source.train.records.common_shape() is None
    assert source.train.records[1].shape == (25, 50, 3)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_folder_images_become_rgb(folder, mode):
    file = folder / "train" / "ant" / ("0.jpg" if mode == "CMYK" else "0.png")
    Image.new(mode, (30, 40)).save(file)
    assert opened(f"folder:{folder}").train.records[0].shape == (40, 30, 3)


def test_folder_errors(tmp_path):
    root = tmp_path / "set"
    assert "no such folder" in fails(f"folder:{root}")
    root.mkdir()
    assert "no train/" in fails(f"folder:{root}")
    (root / "train" / "ant").mkdir(parents=True)
    assert "neither test/ nor val/" in fails(f"folder:{root}")
    (root / "val").mkdir()
    assert "no class folders" in fails(f"folder:{root}")
    (root / "val" / "ant").mkdir()
    assert f"{root / 'train' / 'ant'}: no images" in fails(f"folder:{root}")


def test_folder_classes_must_agree(folder):
    (folder / "test" / "cat").rename(folder / "test" / "dog")
    message = fails(f"folder:{folder}")
    assert "first that differs: cat" in message
    assert "3 classes against 3 in train/" in message


def test_folder_image_that_vanished(folder):
    records = opened(f"folder:{folder}").train.records
    (folder / "train" / "ant" / "0.jpg").unlink()
    with pytest.raises(UserError, match=r"0\.jpg: cannot be read"):
        records[0]
    with pytest.raises(UserError, match=r"0\.jpg: cannot be read"):
        records.common_shape()


@pytest.mark.parametrize(
    "files", [("test/1.png",), ("test/images/1.png",), ("test/readme.txt", "test/.x/1.png"), ()]
)
def test_val_stands_in_for_a_test_without_labels(folder, files):
    (folder / "test").rename(folder / "val")
    (folder / "test").mkdir()
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"")
    source = opened(f"folder:{folder}")
    assert source.test.records.root == folder / "val"
    assert len(source.test.labels) == 12


def test_a_test_with_labels_is_preferred_and_must_be_whole(folder):
    write_folder(folder / "other", held_out="val")
    (folder / "other" / "val").rename(folder / "val")
    assert opened(f"folder:{folder}").test.records.root == folder / "test"
    (folder / "test" / "cat").rename(folder / "test" / "cats")
    assert f"{folder / 'test'}: 3 classes against 3" in fails(f"folder:{folder}")


@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "nothing"])
def test_only_regular_files_are_opened(folder, kind):
    file = folder / "train" / "ant" / "0.jpg"
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "directory":
        file.mkdir()
    else:
        file.symlink_to("/dev/zero" if kind == "device" else folder / "no such file")
    reason = "cannot be read" if kind == "nothing" else "not a regular file"
    assert f"{file}: {reason}" in fails(f"folder:{folder}")


def test_links_to_images_are_images(folder):
    file = folder / "train" / "ant" / "0.jpg"
    (folder / "train" / "ant" / "4.jpg").symlink_to(file)
    records = opened(f"folder:{folder}").train.records
    np.testing.assert_array_equal(records[4], records[0])


def test_home_directory(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert opened("folder:~/same").train.records.root == folder / "train"
    assert "the home directory is unknown" in fails("folder:~no_such_user/same")
    assert "null character" in fails("folder:a\0b")


def test_folder_that_cannot_be_listed(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    assert f"{folder / 'train'}: cannot be listed (Permission denied)" in fails(f"folder:{folder}")


def test_folder_helper_is_deterministic(tmp_path):
    first, second = (
        opened(f"folder:{write_folder(tmp_path / name)}").train.records[7] for name in ("a", "b")
    )
    np.testing.assert_array_equal(first, second)
