"""Prepared TensorFlow data sets, read without TensorFlow."""

import json
import os
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest

from kdjax.errors import UserError
from tests.data.conftest import fails, opened, tfds_picture

TINY = "tfds:tiny_squares"


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
    check_tiny_squares(opened("tfds:tiny_squares", str(prepared_tfds)))


def test_tfds_unknown_name(prepared_tfds, tmp_path):
    assert "(nearest: cifar100" in fails("tfds:cifr100", tmp_path)
    assert "(nearest: tiny_squares" in fails("tfds:tiny_square", prepared_tfds)
    assert "nearest: tiny_squares:1.0.0" in fails("tfds:tiny_squares:9.9.9", prepared_tfds)
    for name in ("cifar 100", "../tiny_squares", "a/b/c", "/etc", ".", "tiny_squares/..", "~"):
        assert "not a name" in fails(f"tfds:{name}", prepared_tfds)


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
    check_tiny_squares(opened("tfds:tiny_squares", str(data_dir)))


def test_tfds_without_a_label(edited_tfds):
    def rename(features):
        inner = features["featuresDict"]["features"]
        inner["digit"] = inner.pop("label")

    message = fails("tfds:tiny_squares", edited_tfds(features=rename))
    assert "has digit, image; needs the features image (an Image) and label" in message


def test_names_in_files_import_nothing(edited_tfds, tmp_path, monkeypatch):
    """A class of a module beside the data, in each place where a file names one."""
    (tmp_path / "evil.py").write_text("raise SystemExit('foreign code')")
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def top(features):
        features["pythonClassName"] = "evil.X"

    def image(features):
        features["featuresDict"]["features"]["image"]["pythonClassName"] = "evil.X"

    def legacy(features):
        features.clear()
        features.update({"type": "evil.X", "proto_cls": "evil.X", "content": {}})

    def module(info):
        info["moduleName"] = "evil"

    for change in (top, image, legacy):
        assert "needs the features image" in fails(TINY, edited_tfds(features=change))
    check_tiny_squares(opened(TINY, str(edited_tfds(info=module))))
    assert not {name for name in set(sys.modules) - before if "evil" in name}


def test_other_features_are_not_looked_at(edited_tfds):
    def add(features):
        features["featuresDict"]["features"]["id"] = {"pythonClassName": "evil.X"}

    check_tiny_squares(opened(TINY, str(edited_tfds(features=add))))


@pytest.mark.parametrize(
    "template", ["../{SPLIT}", "/etc/passwd", "{DATASET}/{SPLIT}", "{OTHER}", "..", "~"]
)
def test_shards_do_not_leave_the_directory(edited_tfds, template):
    def change(info):
        info["splits"][0]["filepathTemplate"] = template

    data_dir = edited_tfds(info=change)
    assert "names no file of this directory" in fails(TINY, data_dir)


def test_shards_with_other_names(edited_tfds):
    def change(info):
        info["splits"][0]["filepathTemplate"] = "{SPLIT}.{SHARD_INDEX}.{NUM_SHARDS}.{FILEFORMAT}"

    data_dir = edited_tfds(info=change)
    version = data_dir / "tiny_squares" / "1.0.0"
    (file,) = version.glob("*-train.*")
    file.rename(version / "train.00000.00001.array_record")
    check_tiny_squares(opened(TINY, str(data_dir)))


def test_the_latest_version_and_the_only_configuration(edited_tfds):
    data_dir = edited_tfds()
    root = data_dir / "tiny_squares"
    (root / "0.9.0").mkdir()
    (root / "1.0.0").rename(root / "10.0.0")
    check_tiny_squares(opened(TINY, str(data_dir)))
    check_tiny_squares(opened(f"{TINY}:10.0.0", str(data_dir)))
    root.rename(data_dir / "plain")
    root.mkdir()
    (data_dir / "plain").rename(root / "plain")
    check_tiny_squares(opened(TINY, str(data_dir)))
    check_tiny_squares(opened(f"{TINY}/plain", str(data_dir)))


def test_home_directory(prepared_tfds, monkeypatch):
    monkeypatch.setenv("HOME", str(prepared_tfds.parent))
    check_tiny_squares(opened(TINY, f"~/{prepared_tfds.name}"))
    monkeypatch.setenv("TFDS_DATA_DIR", f"~/{prepared_tfds.name}")
    check_tiny_squares(opened(TINY))


def test_reading_needs_no_tfds(prepared_tfds):
    code = (
        "import sys; from kdjax.data.tfds_source import open_tfds; "
        "print(open_tfds('tiny_squares', sys.argv[1]).train.records[0].shape, "
        "[m for m in ('tensorflow_datasets', 'google.protobuf') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, prepared_tfds], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "(8, 8, 3) []"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.unlink(), "cannot be read"),
        (lambda file: file.write_bytes(b""), "holds 0 examples"),
        (lambda file: file.write_bytes(file.read_bytes()[:70000]), "damaged|holds"),
        (lambda file: file.write_bytes(file.read_bytes().replace(b"IHDR", b"IHDX")), "damaged"),
    ],
)
def test_damaged_shards(edited_tfds, change, message):
    data_dir = edited_tfds()
    (file,) = (data_dir / "tiny_squares" / "1.0.0").glob("*-train.*")
    change(file)
    assert re.search(rf"{file.name}: .*({message})", fails(TINY, data_dir))


def test_counts_must_agree(edited_tfds):
    def change(info):
        info["splits"][0]["shardLengths"] = ["11"]

    message = fails(TINY, edited_tfds(info=change))
    assert "holds 12 examples, dataset_info.json declares 11" in message


def test_an_image_of_another_shape_than_declared(edited_tfds):
    def change(features):
        image = features["featuresDict"]["features"]["image"]["image"]
        image["shape"]["dimensions"] = ["9", "8", "3"]

    source = opened(TINY, str(edited_tfds(features=change)))
    with pytest.raises(UserError, match=r"an image of \[8, 8, 3\], the set declares \[9, 8, 3\]"):
        source.train.records[0]


@pytest.mark.parametrize("count", ["2", str(2**40), "-3", "1e3", "", "9" * 5000])
@pytest.mark.parametrize("named", [True, False])
def test_numbers_of_classes(edited_tfds, count, named):
    def change(features):
        features["featuresDict"]["features"]["label"]["classLabel"]["numClasses"] = count

    data_dir = edited_tfds(features=change)
    if not named:
        (data_dir / "tiny_squares" / "1.0.0" / "label.labels.txt").unlink()
    assert re.search("classes|numClasses|label 2 is outside", fails(TINY, data_dir))


ODD = [
    None,
    True,
    -1,
    0,
    2**70,
    1.5,
    "",
    "-1",
    "x" * 300,
    "../..",
    "\0",
    [],
    {},
    [[]],
    ["7"],
    {"a": 1},
]


def mutated(content, rng):
    """A copy of a JSON value with one of its parts, at random, removed or replaced."""
    content = json.loads(json.dumps(content))
    place = content
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = keys[rng.integers(len(keys))]
        if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.8:
            place = place[key]
            continue
        if rng.random() < 0.2:
            del place[key]
        else:
            place[key] = ODD[rng.integers(len(ODD))]
        return content


@pytest.mark.parametrize("name", ["dataset_info", "features"])
def test_mutated_json_is_read_or_refused(edited_tfds, name):
    data_dir, rng, refused = edited_tfds(), np.random.default_rng(0), 0
    file = data_dir / "tiny_squares" / "1.0.0" / f"{name}.json"
    content, text = json.loads(file.read_text()), file.read_bytes()
    for number in range(200):
        damaged = bytearray(json.dumps(mutated(content, rng)).encode())
        if number % 4 == 0:
            damaged = bytearray(text[: rng.integers(len(text))])
        elif number % 4 == 1:
            damaged = bytearray(text)
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        file.write_bytes(damaged)
        try:
            source = opened(TINY, str(data_dir))
            _ = source.train.records[0]
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 80
    file.write_text("[" * 100_000)
    assert "not readable as JSON" in fails(TINY, data_dir)


@pytest.mark.skipif("KDJAX_DATA" not in os.environ, reason="KDJAX_DATA names no prepared folder")
def test_tfds_cifar100():
    source = opened("tfds:cifar100", os.path.join(os.environ["KDJAX_DATA"], "tfds"))
    assert len(source.train.labels) == 50000
    assert len(source.test.labels) == 10000
    assert len(source.class_names) == 100
    assert source.class_names[0] == "apple"
    assert (np.bincount(source.train.labels) == 500).all()
    assert (np.bincount(source.test.labels) == 100).all()
    sample = np.stack([source.train.records[i] for i in range(0, 50000, 50)])
    assert sample.shape == (1000, 32, 32, 3)
    np.testing.assert_allclose(sample.mean(axis=(0, 1, 2)) / 255, [0.507, 0.487, 0.441], atol=0.02)
