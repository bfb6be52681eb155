"""`folder:PATH`, `hf:PATH` and `arrays:FILE.npz` as the data of every config."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from kdjax import config as configs
from kdjax import data
from kdjax.config import own_data
from kdjax.config.own_data import Facts
from kdjax.errors import UserError
from tests import tiny_runs as runs

# The data argument of every config that is no segmentation.
FORMS = {
    **dict.fromkeys(("cross_entropy", "dml", "lmcl", "mcl", "mcl_imagenet", "mixskd"), "{}"),
    **dict.fromkeys(("moco_mcl", "simclr_mcl", "few_shot", "linear_probe"), "{}"),
    **dict.fromkeys(("hsakd", "hssakd", "hssakd_online"), "{}"),
    **dict.fromkeys(("sfp", "asfp", "srfp", "asrfp", "hfp", "ghfp", "fpgm"), "{}"),
    "distill": "kd,{}",
    "online": "one,{}",
    "self_distill": "ps_kd,{}",
}


def write_folder(root, *, side, count, classes=3):
    for label in range(classes):
        (root / f"class{label}").mkdir(parents=True)
        for index in range(count):
            image = Image.new("RGB", (side, side + 1), (80 * label, index, 0))
            image.save(root / f"class{label}" / f"{index}.png")
    return f"folder:{root}"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A folder of small images without a test split, one of large images, and arrays."""
    root = tmp_path_factory.mktemp("own")
    small = write_folder(root / "small", side=30, count=100)
    large = write_folder(root / "large" / "train", side=120, count=4)
    write_folder(root / "large" / "val", side=120, count=1)
    arrays = runs.write_arrays(root / "tiny.npz")
    return {"small": small, "large": large.removesuffix("/train"), "arrays": arrays}


def test_facts(sources):
    assert own_data.facts(sources["small"]) == Facts(300, 3, 30, False)
    assert own_data.facts(sources["large"]) == Facts(12, 3, 120, True)
    assert own_data.facts(sources["arrays"]) == Facts(96, 4, 8, True)
    assert own_data.facts("folder:/none") is None and own_data.facts("digits") is None


def test_every_config_has_a_form():
    files = {path.stem for path in (runs.ROOT / "configs").glob("[!_]*.py")}
    assert files == FORMS.keys() | {"detection", "segmentation"}


@pytest.mark.parametrize("name", FORMS)
def test_a_config_fits_data_of_the_users_own(sources, name):
    small, large, arrays = (
        configs.read(f"{name}:{FORMS[name].format(sources[key])}") for key in sources
    )
    for key, config in zip(sources, (small, large, arrays), strict=True):
        if name != "linear_probe":  # which has no network to probe yet
            configs.validate(config)
        assert config.data.source == sources[key]
    assert [c.data.image_size for c in (small, large, arrays)] == [32, 224, 0]
    assert small.data.validation_fraction == 0.2 and not large.data.validation_fraction
    if name == "few_shot":
        return
    assert (small.batch_size, large.batch_size, arrays.batch_size) == (8, 8, 8)
    assert small.epochs == 200 and small.optimizer.schedule == "cosine"
    if name != "linear_probe":
        assert small.networks[0] != large.networks[0] == "resnet18"
    count = small.data.images_per_class
    assert not count or (small.batch_size % count == 0 and small.batch_size // count <= 3)


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory):
    """As many images of the size and classes of `sources['small']`, without a test split."""
    datasets = pytest.importorskip("datasets")
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list("abc"))}
    columns = {
        "image": [Image.new("RGB", (30, 31), (index % 256, 0, 0)) for index in range(300)],
        "label": [index % 3 for index in range(300)],
    }
    rows = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    root = tmp_path_factory.mktemp("hf") / "set"
    rows.save_to_disk(root)
    return f"hf:{root}"


@pytest.mark.filterwarnings("ignore:Cannot locate reference")  # dill's
@pytest.mark.parametrize(
    "name",
    [n if n in ("mcl", "mixskd") else pytest.param(n, marks=pytest.mark.slow) for n in FORMS],
)
def test_sets_of_hugging_face_are_run_as_folders(sources, hugging_face, name):
    made, expected = (
        configs.read(f"{name}:{FORMS[name].format(source)}")
        for source in (hugging_face, sources["small"])
    )
    assert made.data.source == hugging_face
    with made.unlocked():
        made.data.source = sources["small"]
    assert made.to_dict() == expected.to_dict()


def test_a_set_that_is_not_there_is_large(hugging_face):
    assert own_data.facts(hugging_face) == Facts(300, 3, 30, False)
    assert own_data.facts("hf:/none") is None and own_data.is_large("hf:/none")


def test_batch_and_rate_shrink_together(sources, monkeypatch):
    monkeypatch.setattr(own_data, "facts", lambda source: Facts(1000, 10, 64, True))
    config = own_data.fitted(configs.cifar_run("cross_entropy", "cifar100", count=1))
    assert config.batch_size == 32  # 31 steps an epoch
    assert config.optimizer.learning_rate == pytest.approx(0.1 * 32 / 128)
    monkeypatch.setattr(own_data, "facts", lambda source: Facts(10**6, 10, 64, True))
    config = own_data.fitted(configs.cifar_run("cross_entropy", "cifar100", count=1))
    assert (config.batch_size, config.optimizer.learning_rate, config.epochs) == (128, 0.1, 60)
    assert [own_data.images_per_class(8, classes) for classes in (2, 3, 4, 100)] == [4, 4, 2, 2]


def test_images_are_held_out(sources):
    config = configs.read(f"cross_entropy:{sources['small']}")
    whole = data.load(config)
    assert np.bincount(whole.test.labels).tolist() == [20, 20, 20]
    assert np.bincount(whole.train.labels).tolist() == [80, 80, 80]
    pixels = [{image.tobytes() for image in split.images} for split in (whole.train, whole.test)]
    assert not pixels[0] & pixels[1]
    again = data.load(config)
    assert (again.test.images == whole.test.images).all()
    config.data.subset_seed = 1
    assert (data.load(config).test.images != whole.test.images).any()
    config.data.train_fraction = 0.5
    assert len(data.load(config).train.labels) == 120


def test_a_class_of_one_image_cannot_be_split(tmp_path):
    config = configs.base()
    config.data.source = write_folder(tmp_path / "few", side=8, count=1)
    with pytest.raises(UserError, match="CLASS/"):
        data.load(config)
    config.data.validation_fraction = 0.3
    with pytest.raises(UserError, match="no training image of some class of "):
        data.load(config)
