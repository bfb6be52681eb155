"""`load`: subsets, sizes, placement, statistics."""

import numpy as np
import pytest

from kdjax.data import ArraySplit, Dataset, RecordSplit, dataset, load, subset
from kdjax.errors import UserError


def test_digits_on_the_device(make_config):
    data = load(make_config())
    assert isinstance(data, Dataset)
    assert isinstance(data.train, ArraySplit)
    assert isinstance(data.test, ArraySplit)
    assert data.name == "digits"
    assert data.num_classes == 10
    assert data.image_shape == (32, 32, 3)
    pixels = data.train.images / 255
    np.testing.assert_allclose(data.mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(data.std, pixels.std(axis=(0, 1, 2)), rtol=1e-6)
    assert data.mean.dtype == data.std.dtype == np.float32


@pytest.mark.parametrize("placement", ["device", "stream"])
def test_statistics_can_be_given(make_config, placement):
    mean, std = (0.5, 0.25, 0.125), (0.1, 0.2, 0.3)
    data = load(make_config(mean=mean, std=std, placement=placement))
    np.testing.assert_array_equal(data.mean, np.float32(mean))
    np.testing.assert_array_equal(data.std, np.float32(std))


@pytest.mark.parametrize("fraction", [0.1, 0.001])
def test_train_fraction_is_stratified(make_config, fraction):
    whole, part = load(make_config()), load(make_config(train_fraction=fraction))
    expected = np.maximum(1, np.round(np.bincount(whole.train.labels) * fraction))
    np.testing.assert_array_equal(np.bincount(part.train.labels), expected)
    np.testing.assert_array_equal(part.test.images, whole.test.images)
    pixels = part.train.images / 255
    np.testing.assert_allclose(part.mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-6)


def test_stratified_depends_on_its_seed_and_nests():
    labels = np.repeat(np.arange(4), 50)
    half = subset.stratified(labels, 0.5, seed=3)
    np.testing.assert_array_equal(half, subset.stratified(labels, 0.5, seed=3))
    assert (half != subset.stratified(labels, 0.5, seed=4)).any()
    assert set(subset.stratified(labels, 0.1, seed=3)) < set(half)
    assert (np.diff(half) > 0).all()


@pytest.mark.parametrize("source", ["digits", "folder"])
def test_first_classes_only(make_config, folder, source):
    where = "digits" if source == "digits" else f"folder:{folder}"
    data = load(make_config(source=where, classes=2))
    assert data.num_classes == 2
    for split in (data.train, data.test):
        assert set(split.labels) == {0, 1}
        assert len(split.images) == len(split.labels)


def test_folder_of_one_size_is_held_on_the_device(make_config, folder):
    data = load(make_config(source=f"folder:{folder}"))
    assert data.train.images.shape == (12, 40, 30, 3)
    assert data.image_shape == (40, 30, 3)
    np.testing.assert_array_equal(data.train.labels, np.repeat([0, 1, 2], 4))
    # Different pictures in the order of the labels: none was overwritten by another thread.
    assert len(np.unique(data.train.images.reshape(12, -1), axis=0)) == 12


def test_image_size_brings_uneven_images_to_the_device(make_config, uneven_folder):
    source = f"folder:{uneven_folder}"
    data = load(make_config(source=source, image_size=16))
    assert data.train.images.shape == (12, 16, 16, 3)
    assert data.image_shape == (16, 16, 3)
    streamed = load(make_config(source=source, image_size=16, placement="stream"))
    assert isinstance(streamed.train, RecordSplit)
    # 12 images are fewer than the sample, so both statistics are over all of them.
    np.testing.assert_allclose(streamed.mean, data.mean, rtol=1e-6)
    np.testing.assert_allclose(streamed.std, data.std, rtol=1e-6)


def test_image_size_resizes_arrays(make_config):
    data = load(make_config(image_size=8))
    assert data.train.images.shape == (1437, 8, 8, 3)


@pytest.mark.parametrize(
    "changes", [{"placement": "stream"}, {"augmentation": "resized_crop_flip"}]
)
def test_arrays_can_be_streamed(make_config, changes):
    data = load(make_config(**changes))
    assert isinstance(data.train, RecordSplit)
    assert isinstance(data.test, RecordSplit)
    assert data.image_shape == (32, 32, 3)
    assert data.train.records[0].shape == (32, 32, 3)


@pytest.mark.parametrize("placement", ["device", "stream"])
def test_held_out_classes_are_numbered_from_zero(make_config, placement):
    whole = load(make_config())
    data = load(make_config(first_class=7, placement=placement))
    assert data.class_names == ("7", "8", "9")
    for name in ("train", "test"):
        part, labels = getattr(data, name), getattr(whole, name).labels
        np.testing.assert_array_equal(part.labels, labels[labels >= 7] - 7)
        assert part.labels.dtype == np.int32
        pixels = np.stack([part[0][index] for index in range(5)])
        np.testing.assert_array_equal(pixels, getattr(whole, name).images[labels >= 7][:5])
    middle = load(make_config(first_class=3, classes=2))
    assert middle.class_names == ("3", "4") and set(middle.test.labels) == {0, 1}


def test_large_sets_are_streamed(make_config, monkeypatch):
    size = 1797 * 32 * 32 * 3
    monkeypatch.setattr(dataset, "DEVICE_BYTES", size)
    assert isinstance(load(make_config()).train, ArraySplit)
    monkeypatch.setattr(dataset, "DEVICE_BYTES", size - 1)
    assert isinstance(load(make_config()).train, RecordSplit)
    assert isinstance(load(make_config(placement="device")).train, ArraySplit)


def test_tfds_with_subset(make_config, prepared_tfds):
    data = load(
        make_config(
            source="tfds:tiny_squares", dir=str(prepared_tfds), classes=2, train_fraction=0.5
        )
    )
    np.testing.assert_array_equal(np.bincount(data.train.labels), [2, 2])
    assert data.train.images.shape == (4, 8, 8, 3)
    assert data.class_names == ("red", "green")
    # Blue is constant without its class: its deviation is one gray level, never 0.
    np.testing.assert_allclose(data.mean, [100 / 255, 100 / 255, 0], rtol=1e-6)
    np.testing.assert_allclose(data.std, [100 / 255, 100 / 255, 1 / 255], rtol=1e-6)


def test_statistics_of_many_images():
    pixels = np.random.default_rng(0).integers(0, 256, (2500, 4, 4, 3), dtype=np.uint8)
    mean, std = dataset.channel_statistics(pixels)
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 1, 2)) / 255, rtol=1e-6)
    np.testing.assert_allclose(std, pixels.std(axis=(0, 1, 2)) / 255, rtol=1e-6)


def test_unreadable_image_is_named(make_config, folder):
    (folder / "test" / "cat" / "1.jpg").write_bytes(b"\xff\xd8\xff")
    for changes in ({}, {"image_size": 16}):
        with pytest.raises(UserError, match=r"cat/1\.jpg: unreadable image"):
            load(make_config(source=f"folder:{folder}", **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augmentation": "flop"}, r"config\.data\.augmentation='flop'"),
        ({"placement": "cloud"}, r"config\.data\.placement='cloud'.*auto, device, stream"),
        ({"placement": "device", "augmentation": "resized_crop_flip"}, "use placement='stream'"),
        ({"train_fraction": 0.0}, r"config\.data\.train_fraction=0\.0"),
        ({"train_fraction": 1.5}, r"config\.data\.train_fraction=1\.5"),
        ({"classes": 11}, r"config\.data\.classes=11: must be 0 \(all\) or 2\.\.10"),
        ({"classes": 1}, r"config\.data\.classes=1"),
        ({"first_class": 9}, r"config\.data\.first_class=9: must be 0\.\.8"),
        ({"first_class": -1}, r"config\.data\.first_class=-1"),
        (
            {"first_class": 6, "classes": 5},
            r"config\.data\.classes=5: must be 0 \(all\) or 2\.\.4 for digits from class 6 on",
        ),
        ({"image_size": -1}, r"config\.data\.image_size=-1"),
        ({"mean": (0.5, 0.5, 0.5)}, "give both or none"),
        ({"mean": (0.5,), "std": (0.5,)}, r"config\.data\.mean=\(0\.5,\): give 3 values"),
        ({"mean": (0.5,) * 3, "std": (0.5,)}, r"config\.data\.std=\(0\.5,\): give 3 values"),
        ({"mean": (0.5,) * 3, "std": (0.5, 0.0, 1.0)}, r"config\.data\.std=.*above 0"),
        ({"subset_seed": -1}, r"config\.data\.subset_seed=-1"),
    ],
)
def test_bad_settings(make_config, changes, message):
    with pytest.raises(UserError, match=message):
        load(make_config(**changes))


@pytest.mark.parametrize("placement", ["auto", "stream", "device"])
def test_uneven_images_need_a_size(make_config, uneven_folder, placement):
    with pytest.raises(UserError, match=r"set config\.data\.image_size"):
        load(make_config(source=f"folder:{uneven_folder}", placement=placement))


def test_streamed_rectangles_need_a_size(make_config, folder):
    with pytest.raises(UserError, match=r"set config\.data\.image_size"):
        load(make_config(source=f"folder:{folder}", placement="stream"))
