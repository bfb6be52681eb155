"""Small data sets of every kind, made on the spot."""

import dataclasses
import io
import json
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from kdjax.config.sections import Data
from kdjax.data.sources import open_source
from kdjax.errors import UserError


@pytest.fixture
def make_config():
    """config with the defaults of `config.data`, and the given changes."""

    def make(**changes):
        data = dataclasses.asdict(Data(source="digits", augmentation="none"))
        return ConfigDict({"seed": 0, "data": {**data, **changes}})

    return make


def picture(number, height, width):
    """A smooth image that differs from number to number; uint8 [height, width, 3]."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (3 + c) + number) + np.cos(y / (4 + c) - number) for c in range(3)]
    return np.uint8((np.stack(waves, -1) + 2) * 63)


def write_folder(root, *, held_out="test", sizes=((40, 30),), per_class=4):
    """Writes train/ and `held_out`/ with the classes ant, bee, cat; returns `root`."""
    number = 0
    for split in ("train", held_out):
        for name in ("ant", "bee", "cat"):
            (root / split / name).mkdir(parents=True)
            for i in range(per_class):
                image = Image.fromarray(picture(number, *sizes[number % len(sizes)]))
                image.save(root / split / name / f"{i}.jpg")
                number += 1
    return root


@pytest.fixture
def folder(tmp_path):
    """An image folder with images of one size, 40 x 30."""
    return write_folder(tmp_path / "same")


@pytest.fixture
def uneven_folder(tmp_path):
    """An image folder whose images differ in size; held out in val/."""
    sizes = ((40, 30), (25, 50), (24, 24), (64, 48))
    return write_folder(tmp_path / "uneven", held_out="val", sizes=sizes)


@pytest.fixture(scope="session")
def prepared_tfds(tmp_path_factory):
    """A data directory with the prepared set `tiny_squares`: 12 + 6 PNGs of 8x8, 3 classes."""
    tfds = pytest.importorskip("tensorflow_datasets")
    data_dir = tmp_path_factory.mktemp("tfds")
    sizes = {"train": 12, "test": 6}

    class TinySquares(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = data_dir

        def _info(self):
            features = tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 3)),
                    "label": tfds.features.ClassLabel(names=["red", "green", "blue"]),
                }
            )
            return tfds.core.DatasetInfo(builder=self, description="-", features=features)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in sizes}

        def _generate_examples(self, split):
            for i in range(sizes[split]):
                png = io.BytesIO()
                Image.fromarray(tfds_picture(i % 3)).save(png, "PNG")
                png.seek(0)
                yield f"{split}{i}", {"image": png, "label": i % 3}

    TinySquares(data_dir=str(data_dir), file_format="array_record").download_and_prepare()
    return data_dir


def tfds_picture(label):
    """The image of a class of `tiny_squares`: one channel at 200."""
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., label] = 200
    return image


@pytest.fixture
def edited_tfds(prepared_tfds, tmp_path):
    """Copies `tiny_squares` with changes to its dataset_info.json and features.json."""

    def edit(info=lambda info: None, features=lambda features: None):
        shutil.rmtree(tmp_path / "tiny_squares", ignore_errors=True)
        shutil.copytree(prepared_tfds / "tiny_squares", tmp_path / "tiny_squares")
        version = tmp_path / "tiny_squares" / "1.0.0"
        for name, change in (("dataset_info", info), ("features", features)):
            content = json.loads((version / f"{name}.json").read_text())
            change(content)
            (version / f"{name}.json").write_text(json.dumps(content))
        return tmp_path

    return edit


def opened(source, dir="", layout=""):
    """The source of these settings."""
    return open_source(Data(source=source, dir=str(dir), layout=layout))


def fails(source, data_dir=""):
    """The message of the UserError that opening `source` raises: always one line."""
    with pytest.raises(UserError) as caught:
        opened(source, data_dir)
    message = str(caught.value)
    assert "\n" not in message
    return message
