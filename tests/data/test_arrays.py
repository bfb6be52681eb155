"""Data sets as NumPy files."""

import zipfile

import numpy as np
import pytest

from kdjax.data import arrays as array_files
from kdjax.errors import UserError
from tests.data.conftest import fails, opened


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
    source = opened(f"arrays:{file}")
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


# Malformed members


def rewritten(tmp_path, change):
    """A file of arrays, and its members as `change` returns them: {name: bytes}."""
    plain, file = tmp_path / "plain.npz", tmp_path / "set.npz"
    np.savez(plain, **four_keys(arrays(), arrays()))
    with zipfile.ZipFile(plain) as archive:
        members = change({name: archive.read(name) for name in archive.namelist()})
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file


def header(shape, dtype="|u1"):
    text = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"abc", "train_images.npy is not an array"),
        (b"", "train_images.npy is not an array"),
        (b"\x93NUMPY\x07\x00" + bytes(80), "is of format 7.0"),
        (header((6, -4, -4, 3)) + bytes(288), "has the shape [6, -4, -4, 3]"),
        (header((2**40, 32, 32, 3)), "not [1099511627776, 32, 32, 3]"),
        (header((6, 4, 4, 3)) + bytes(287), "not [6, 4, 4, 3]"),
        (header((6,), "|O") + bytes(48), "Python objects, which are never unpickled"),
        (header((6,), "no dtype") + bytes(48), "not a readable .npz file"),
        (header("shape") + bytes(48), "not a readable .npz file"),
    ],
)
def test_members_are_known_before_they_are_read(tmp_path, content, message):
    file = rewritten(tmp_path, lambda members: {**members, "train_images.npy": content})
    assert message in fails(f"arrays:{file}")


def test_members_that_claim_more_than_they_are_compressed_to(tmp_path):
    file = tmp_path / "set.npz"
    np.savez_compressed(file, **four_keys(arrays(), arrays()))
    content = bytearray(file.read_bytes())
    place = content.index(b"PK\x01\x02")  # the first member's entry of the central directory
    content[place + 24 : place + 28] = (2**31).to_bytes(4, "little")
    file.write_bytes(content)
    assert "claims to be larger" in fails(f"arrays:{file}")


def test_encrypted_members(tmp_path):
    file = tmp_path / "set.npz"
    np.savez(file, **four_keys(arrays(), arrays()))
    content = bytearray(file.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    file.write_bytes(content)
    assert "train_images.npy is encrypted" in fails(f"arrays:{file}")


def test_members_of_other_compressions_and_twice(tmp_path):
    file = tmp_path / "set.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("image.npy", header((6,)) + bytes(6))
    assert "compressed in another way" in fails(f"arrays:{file}")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("image.npy", header((6,)) + bytes(6))
        archive.writestr("image", header((6,)) + bytes(6))
    assert "it holds image twice" in fails(f"arrays:{file}")


def test_arrays_larger_than_the_memory(tmp_path, monkeypatch):
    file = tmp_path / "set.npz"
    np.savez(file, **four_keys(arrays(), arrays()))
    monkeypatch.setattr("kdjax.data.available_memory.available_bytes", lambda: 287)
    assert "set.npz: train_images.npy needs" in fails(f"arrays:{file}")


def test_arrays_that_are_no_regular_file(tmp_path):
    (tmp_path / "set.npz").mkdir()
    assert "no such file" in fails(f"arrays:{tmp_path / ('x' * 300)}.npz")
    assert "no such file" in fails(f"arrays:{tmp_path / ('x' * 300) / 'set'}.npz")
    assert "set.npz: not a regular file" in fails(f"arrays:{tmp_path / 'set.npz'}")


@pytest.mark.parametrize("dtype", ["i1", "u1", "<i2", ">i4", "<u8", ">i8"])
def test_labels_of_any_integer_type(tmp_path, dtype):
    file, labels = tmp_path / "set.npz", np.array([0, 1, 2, 0, 1, 2], dtype)
    np.savez(file, **four_keys(arrays(label=labels), arrays(label=labels)))
    source = opened(f"arrays:{file}")
    assert source.train.labels.dtype == np.int32
    np.testing.assert_array_equal(source.train.labels, labels)


@pytest.mark.parametrize("label", [6, 2**31 - 2, 2**31, 2**32 + 3, 2**40, 2**63 - 1, 2**64 - 1])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_label_beyond_all_classes_makes_none(tmp_path, label, split):
    file, labels = tmp_path / "set.npz", np.array([0, 1, 2, 0, 1, label], np.uint64)
    stored = four_keys(arrays(), arrays()) | {f"{split}_labels": labels}
    np.savez(file, **stored)
    assert f"({split}): label {label} makes {label + 1} classes" in fails(f"arrays:{file}")


@pytest.mark.parametrize("shape", [(6, 0, 0, 3), (6, 4, 0, 3), (6, 4, 4, 0)])
def test_arrays_without_pixels(tmp_path, shape):
    image, file = np.zeros(shape, np.uint8), tmp_path / "set.npz"
    np.savez(file, **four_keys(arrays(image=image), arrays(image=image)))
    assert f"train_images {list(shape)} has no pixels" in fails(f"arrays:{file}")


@pytest.mark.parametrize("shape", [(6, 3, 8, 8), (6, 1, 8, 7), (6, 13, 8, 8), (6, 3, 2, 5)])
def test_channels_first(tmp_path, shape):
    image = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    file = tmp_path / "set.npz"
    np.savez(file, **four_keys(arrays(image=image), arrays(image=image)))
    assert "seems to be [N, C, H, W]" in fails(f"arrays:{file}")
    train = array_files.open_arrays(str(file), "NCHW").train.images
    assert train.flags.c_contiguous
    for channel in range(shape[1]):
        np.testing.assert_array_equal(train[..., channel], image[:, channel])
    np.testing.assert_array_equal(array_files.open_arrays(str(file), "NHWC").train.images, image)


@pytest.mark.parametrize("shape", [(6, 8, 8, 3), (6, 3, 3, 3), (6, 1, 1, 1), (6, 8, 8, 13)])
def test_channels_last_are_taken_as_they_are(tmp_path, shape):
    file, image = tmp_path / "set.npz", np.zeros(shape, np.uint8)
    np.savez(file, **four_keys(arrays(image=image), arrays(image=image)))
    assert opened(f"arrays:{file}").train.images.shape == shape


def test_unknown_layout(tmp_path):
    with pytest.raises(UserError, match=r"config\.data\.layout='CHW'"):
        array_files.open_arrays(str(tmp_path / "set.npz"), "CHW")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_files_are_read_or_refused(tmp_path, save):
    """300 files with a few bytes changed, or cut: arrays or one line, nothing else."""
    file, rng, refused = tmp_path / "set.npz", np.random.default_rng(0), 0
    save(file, **four_keys(arrays(), arrays()))
    whole = file.read_bytes()
    for number in range(300):
        damaged = bytearray(whole[: rng.integers(len(whole))] if number % 5 == 0 else whole)
        for _ in range(min(rng.integers(1, 4), len(damaged))):
            damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
        file.write_bytes(damaged)
        try:
            array_files.open_arrays(str(file))
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 150


def test_random_headers_are_read_or_refused(tmp_path):
    rng = np.random.default_rng(1)
    for _ in range(300):
        shape = tuple(int(n) for n in rng.choice([-1, 0, 1, 3, 6, 2**31, 2**62], rng.integers(6)))
        dtype = str(rng.choice(["|u1", "<i8", "|O", "<f4", "|V8", "<U4", "|b1", "M8[s]", "u1,i2"]))
        content = header(shape, dtype) + bytes(int(rng.integers(0, 400)))
        name = f"{rng.choice(['train_images', 'test_labels'])}.npy"
        file = rewritten(tmp_path, lambda members, n=name, c=content: {**members, n: c})
        try:
            array_files.open_arrays(str(file))
        except UserError as error:
            assert "\n" not in str(error)
