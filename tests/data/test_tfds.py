"""Prepared TensorFlow data sets, read without TensorFlow."""

import os
import pickle

import numpy as np
import pytest

from kdjax.data.sources import open_source
from tests.data.conftest import fails, tfds_picture


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
