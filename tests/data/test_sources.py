"""The names of sources, and the digits."""

import subprocess
import sys

import numpy as np
import pytest

from kdjax import data as data_package
from kdjax.data import images, sources
from kdjax.errors import UserError
from tests.data.conftest import fails, opened


def test_importing_data_is_light():
    code = (
        "import sys, kdjax.data; "
        "print([m for m in ('tensorflow_datasets', 'grain', 'sklearn') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_unknown_sources():
    assert "config.data.source='cifar100' is unknown" in fails("cifar100")
    assert "did you mean 'digits'" in fails("digit")
    assert "did you mean 'folder'" in fails("folders:/x")
    assert "config.data.source='tfds:': write tfds:NAME" in fails("tfds:")
    assert "config.data.source='tfds': write tfds:NAME" in fails("tfds")
    assert "config.data.source='digits:0': write digits" in fails("digits:0")
    assert "write digits" in fails("digits:")


def test_settings_without_effect_are_refused():
    assert "config.data.dir='/x' has no effect on config.data.source='digits'" in fails(
        "digits", "/x"
    )
    with pytest.raises(UserError, match=r"config\.data\.layout='NCHW' has no effect"):
        opened("folder:/x", layout="NCHW")


@pytest.fixture
def stripes(monkeypatch):
    """A source of a user's: `stripes:COUNT`, of COUNT images of two classes."""
    monkeypatch.setattr(sources.SOURCES, "_entries", {**sources.SOURCES._entries})

    def open_stripes(place, data):
        count = int(place)
        labels = np.arange(count, dtype=np.int32) % 2
        pixels = np.zeros((count, 4, 4, 3), np.uint8)
        pixels[labels == 1, ::2] = 255
        split = data_package.ArraySplit(pixels, labels)
        return data_package.Source(data.source, split, split, ("plain", "striped"))

    data_package.register_source("stripes", open_stripes, place="COUNT")


def test_a_registered_source(stripes, make_config):
    loaded = data_package.load(make_config(source="stripes:6"))
    assert loaded.class_names == ("plain", "striped") and loaded.train.images.shape == (6, 4, 4, 3)
    assert "write stripes:COUNT" in fails("stripes")
    assert "did you mean 'stripes'" in fails("stripe:6")


def test_sources_are_checked_whoever_opens_them(monkeypatch):
    monkeypatch.setattr(sources.SOURCES, "_entries", {})
    pixels, labels = np.zeros((4, 4, 4, 3), np.uint8), np.array([0, 1, 0, 1], np.int32)
    good = data_package.ArraySplit(pixels, labels)
    for name, split in {
        "negative": good._replace(labels=labels - 1),
        "large": good._replace(labels=labels + 1),
        "few": good._replace(images=pixels[:3]),
        "none": data_package.ArraySplit(pixels[:0], labels[:0]),
    }.items():
        source = data_package.Source("mine", good, split, ("a", "b"))
        data_package.register_source(name, lambda place, data, source=source: source)
        assert f"config.data.source='{name}' (test): " in fails(name)


def test_registering_twice_or_wrongly():
    for kind, settings in (("digits", ()), ("a:b", ()), ("mine", ("color",))):
        with pytest.raises(ValueError, match=f"'{kind}'"):
            data_package.register_source(kind, lambda place, data: None, settings=settings)


def test_digits():
    source = opened("digits")
    train, test = source.train, source.test
    assert train.images.shape == (1437, 32, 32, 3)
    assert test.images.shape == (360, 32, 32, 3)
    assert train.images.dtype == np.uint8
    assert train.labels.dtype == np.int32
    assert source.class_names == tuple("0123456789")
    # Stratified: each class has 174 to 183 images, a fifth of them in the test.
    assert set(np.bincount(test.labels)) <= {35, 36, 37}
    assert opened("digits") is source
    for array in (train.images, train.labels, test.images, test.labels):
        assert not array.flags.writeable
    assert train.images.max() > 250
    assert train.images.min() == 0


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    raw = load_digits()
    train, test = train_test_split(
        np.arange(1797), test_size=0.2, stratify=raw.target, random_state=0
    )
    source = opened("digits")
    for split, rows in ((source.train, train), (source.test, test)):
        np.testing.assert_array_equal(split.labels, raw.target[np.sort(rows)])
    first = np.round(raw.images[np.sort(test)[0]] * (255 / 16)).astype(np.uint8)
    small = np.repeat(first[..., None], 3, axis=-1)
    np.testing.assert_array_equal(source.test.images[0], images.resize(small, 32, 32))
