"""Sets of the Hugging Face library datasets on the disk: what is read, and what is refused."""

from __future__ import annotations

import importlib.util
import pickle

import numpy as np
import PIL.Image
import pytest

from kdjax import config as configs
from kdjax import data
from kdjax.data import sources
from kdjax.errors import UserError

needed = pytest.mark.skipif(
    importlib.util.find_spec("datasets") is None, reason="the package datasets is not installed"
)
# dill's, of what datasets computes its fingerprints from.
pytestmark = pytest.mark.filterwarnings("ignore:Cannot locate reference")
NAMES = ("cat", "dog", "owl")
PIXELS = np.random.default_rng(0).integers(0, 256, (9, 6, 5, 3)).astype(np.uint8)


def rows(start, stop, **more):
    import datasets

    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))}
    features |= {name: datasets.ClassLabel(names=["a", "b"]) for name in more}
    numbers = range(start, stop)
    columns = {
        "image": [PIL.Image.fromarray(PIXELS[i]) for i in numbers],
        "label": [i % 3 for i in numbers],
        **{name: [0] * len(numbers) for name in more},
    }
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def opened(folder, **changes):
    config = configs.base()
    config.data.update(source=f"hf:{folder}", **changes)
    return sources.open_source(config.data)


def test_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package datasets: pip install 'kdjax\[hf\]'"):
        opened(tmp_path)


def test_columns_of_other_sources_are_refused():
    config = configs.base()
    config.data.update(source="digits", columns=("image", "label"))
    with pytest.raises(UserError, match=r"config.data.columns=.* has no effect"):
        sources.open_source(config.data)


@needed
def test_splits_are_read_to_the_pixel(tmp_path):
    import datasets

    datasets.DatasetDict(train=rows(0, 6), validation=rows(6, 9)).save_to_disk(tmp_path / "set")
    source = opened(tmp_path / "set")
    assert source.name == "set" and source.class_names == NAMES
    train = pickle.loads(pickle.dumps(source.train))  # workers receive a copy
    np.testing.assert_array_equal(np.stack([train.records[i] for i in range(6)]), PIXELS[:6])
    np.testing.assert_array_equal(source.test.records[2], PIXELS[8])
    assert source.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert source.train.records.common_shape() == (6, 5, 3)
    config = configs.base()
    config.data.update(source=f"hf:{tmp_path / 'set'}", image_size=6)
    assert data.load(config).image_shape == (6, 6, 3)


@needed
def test_one_split_and_named_columns(tmp_path):
    rows(0, 6, kind=True).save_to_disk(tmp_path / "one")
    with pytest.raises(UserError, match=r"hold some out by config.data.validation_fraction=0.2"):
        opened(tmp_path / "one")
    with pytest.raises(UserError, match=r"of labels: label, kind; name one of each by"):
        opened(tmp_path / "one", validation_fraction=0.5)
    for columns in (("image",), ("label", "kind"), ("image", "nothing")):
        with pytest.raises(UserError, match=r"there are image, label, kind"):
            opened(tmp_path / "one", validation_fraction=0.5, columns=columns)
    source = opened(tmp_path / "one", validation_fraction=0.5, columns=("image", "kind"))
    assert source.class_names == ("a", "b") and not source.train.labels.any()


@needed
def test_what_is_no_set(tmp_path):
    with pytest.raises(UserError, match="holds no set that save_to_disk wrote"):
        opened(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        opened(tmp_path / "nothing")
