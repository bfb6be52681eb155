"""`--job=knn`, `--job=few-shot` and `--job=cka`, as their users meet them."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from PIL import Image

from kdjax import config as configs
from kdjax import data
from kdjax import networks as trained_networks
from kdjax.cli import attention_picture, episode_picture, heat_map, neighbor_picture, predicting
from kdjax.errors import UserError
from kdjax.runs import workdir as workdirs
from kdjax.runs.checkpoints import Checkpoints
from kdjax.transfer import prototypes
from tests import tiny_runs as runs
from tests.networks import saved
from tests.tiny_runs import networks  # noqa: F401 (registers 'tiny')


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return runs.write_arrays(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="module")
def run(source, tmp_path_factory):
    """A workdir as that of a run of two networks."""
    workdir = tmp_path_factory.mktemp("runs") / "two"
    config = configs.base()
    config.networks, config.data.source = ("tiny", "tiny"), source
    workdirs.claim(workdir, config)
    first = saved.network("tiny", runs.CLASSES)
    other = jax.tree.map(lambda x: x[..., ::-1, :] if x.ndim > 1 else x, first.variables)
    members = {"network_0": first.variables, "network_1": other}
    state = {
        "params": {"cohort": {name: each["params"] for name, each in members.items()}},
        "model_state": {"batch_stats": {n: each["batch_stats"] for n, each in members.items()}},
    }
    metadata = saved.run_metadata(state, first.spec, first.spec)
    checkpoints = Checkpoints(workdir / "checkpoints", "mean/top1")
    checkpoints.save(6, state, {"mean/top1": 0.5}, metadata)
    checkpoints.close()
    return workdir


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The directory of a network without a run."""
    directory = tmp_path_factory.mktemp("networks") / "tiny"
    trained_networks.save(directory, saved.network("tiny", 3), {})
    return directory


def read(directory, name):
    return json.loads((directory / f"{name}.json").read_text())


def test_knn_of_a_run(call, run, tmp_path):
    flags = ("--job=knn", f"--workdir={run}", "--neighbors=5", "--layers=stage1,embedding")
    status, output, errors = call(*flags, f"--output={tmp_path}/new")
    assert (status, errors) == (0, [])
    found = read(tmp_path / "new", "knn")
    assert found["top1"].keys() == {"network_0", "network_1"}
    for name, layers in found["top1"].items():
        assert layers.keys() == {"stage1", "embedding"}
        assert layers["stage1"] > 0.9  # shades of gray are told apart by any network
        assert f"{name}  stage1  k-NN top-1 {100 * layers['stage1']:6.2f} %" in output
    assert not (run / "knn.json").exists()
    with Image.open(tmp_path / "new" / "knn.png") as picture:
        assert picture.size[0] > picture.size[1] > 6 * 8  # six rows of two queries


def test_a_query_stands_before_its_neighbors(source):
    config = configs.base()
    config.data.source = source
    dataset = data.load(config)
    bank = np.eye(96)
    queries = np.zeros((30, 96))
    queries[0, [3, 7]], queries[29, 50] = (4, 3), 1
    rows = neighbor_picture.rows(dataset, queries, bank, limit=13)
    assert len(rows.pictures) == len(rows.captions) == 12  # two queries
    np.testing.assert_array_equal(rows.pictures[0], dataset.test.images[0])
    np.testing.assert_array_equal(rows.pictures[1], dataset.train.images[3])
    np.testing.assert_array_equal(rows.pictures[2], dataset.train.images[7])
    np.testing.assert_array_equal(rows.pictures[6], dataset.test.images[29])
    np.testing.assert_array_equal(rows.pictures[7], dataset.train.images[50])
    assert rows.captions[:3] == ["query: 0", "3\n0.80", "3\n0.60"]


def test_episodes_of_held_out_digits(call, network, tmp_path):
    """`--config configs/few_shot.py:digits` alone does the job, and does it again."""
    config = f"--config={runs.ROOT}/configs/few_shot.py:digits"
    few = ("--config.few_shot.episodes=20", "--config.data.image_size=8")
    found = []
    for folder in ("first", "second"):
        output = f"--output={tmp_path / folder}"
        status, printed, errors = call(config, *few, f"--workdir={network}", output)
        assert (status, errors) == (0, [])
        found.append(read(tmp_path / folder, "few_shot"))
    assert printed.startswith("20 episodes, 5 ways of 5 classes, 1 shots, 15 queries\n")
    assert found[0] == found[1]
    with Image.open(tmp_path / "first" / "few_shot.png") as picture:
        assert picture.size[0] > 2 * picture.size[1] > 5 * 96  # a row of 12 for every class
    assert (found[0]["first_class"], found[0]["episodes"]) == (5, 20)
    accuracy = found[0]["accuracy"]["network_0"]["embedding"]
    assert 0.25 < accuracy["mean"] < 1 and 0 < accuracy["interval"] < 0.1
    seed = "--config.seed=1"
    assert call(config, *few, seed, f"--workdir={network}", f"--output={tmp_path}")[0] == 0
    assert read(tmp_path, "few_shot")["accuracy"] != found[0]["accuracy"]


def test_an_episode_shows_labeled_images_then_queries(source):
    config = configs.base()
    config.data.source = source
    dataset = data.load(config)
    features = np.eye(4)[dataset.test.labels].astype(np.float32)
    images = [np.flatnonzero(dataset.test.labels == label)[:3] for label in (2, 0)]
    support, query = np.array(images)[None, :, :1], np.array(images)[None, :, 1:]
    features[query[0, 1, 1]] = np.eye(4)[2]  # of class 0, like class 2
    episodes = prototypes.Episodes(support, query)
    rows = episode_picture.rows(dataset, "test", features, episodes, distance="cosine")
    assert rows.captions == [
        *("labeled: 2", "right", "right"),
        *("labeled: 0", "right", "taken for 2"),
    ]
    for picture, number in zip(rows.pictures, np.concatenate(images), strict=True):
        np.testing.assert_array_equal(picture, dataset.test.images[number])
    assert episode_picture.episode(dataset, "test", features, episodes, distance="cosine").size[1]


def test_cka_of_a_run_and_another_network(call, run, network, tmp_path):
    flags = ("--job=cka", f"--workdir={run}", f"--others={network}", f"--output={tmp_path}")
    status, _, errors = call(*flags)
    assert (status, errors) == (0, [])
    found = read(tmp_path, "cka")
    names = [f"two/network_{i}" for i in (0, 1)] + [f"{network}/network_0"]
    layers = ("stage1", "stage2", "embedding")
    assert found["features"] == [f"{name}/{layer}" for name in names for layer in layers]
    assert found["images"] == 30
    values = np.array(found["cka"])
    np.testing.assert_allclose(np.diag(values), 1, atol=1e-5)
    np.testing.assert_array_equal(values, values.T)
    np.testing.assert_allclose(values[1], values[2], atol=1e-5)  # tiny's embedding is stage 2's
    assert values.min() >= 0 and values[0, 3] < 0.999
    with Image.open(tmp_path / "cka.png") as picture:
        assert picture.size[0] == picture.size[1] > 9 * heat_map.CELL


def test_pictures_of_what_networks_look_at(call, run, tmp_path):
    flags = (f"--workdir={run}", f"--output={tmp_path}", "--pictures=12")
    assert call("--job=grad-cam", *flags)[0] == 0
    with Image.open(tmp_path / "grad_cam.png") as picture:
        # Four images, each before two networks, in one row of twelve.
        assert picture.size[0] > 12 * 96 and 128 < picture.size[1] < 256
    status, _, errors = call("--job=grad-cam", *flags, "--stage=9")
    assert status == 2 and "--stage=9: network_0 has stages 1..2" in errors[0]


def test_red_is_where_the_map_is_high():
    pixels = np.full((2, 4, 4, 1), 100, np.uint8)
    maps = np.zeros((2, 2, 2), np.float32)
    maps[0, 0, 0] = 3.0
    pictures = attention_picture.overlaid(pixels, maps)
    assert pictures.shape == (2, 4, 4, 3) and (pictures[1] == 100).all()
    np.testing.assert_array_equal(
        pictures[0, 0, 0], np.rint(0.3 * 100 + 0.7 * np.array([255, 0, 0]))
    )
    np.testing.assert_array_equal(pictures[0, 3, 3], 100)


def test_points_of_features_keep_classes_apart(call, run, tmp_path):
    flags = (f"--workdir={run}", f"--output={tmp_path}", "--points=24", "--layers=stage1")
    status, _, errors = call("--job=t-sne", *flags)
    assert (status, errors) == (0, [])
    found = read(tmp_path, "t_sne")
    assert found["points"].keys() == {"network_0 stage1", "network_1 stage1"}
    points, labels = np.array(found["points"]["network_0 stage1"]), np.array(found["labels"])
    assert points.shape == (24, 2) and len(set(found["images"])) == 24
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.diag([np.inf] * 24)
    assert np.mean(labels[distances.argmin(1)] == labels) > 0.9  # shades of gray
    with Image.open(tmp_path / "t_sne.png") as picture:
        assert picture.size[0] > 2 * 4 * 120


def test_heat_map_has_the_color_of_every_cell():
    values = np.array([[1.0, 0.25], [0.25, 1.0]])
    picture = heat_map.heat_map(values, ["a", "bc"])
    first = picture.size[0] - 8 - 2 * heat_map.CELL  # where the cells begin
    for row in range(2):
        for column in range(2):
            corner = (first + column * heat_map.CELL + 1, first + row * heat_map.CELL + 1)
            assert picture.getpixel(corner) == heat_map.color(values[row, column])
    assert heat_map.color(-0.1) == heat_map.color(0) != heat_map.color(0.5)
    assert heat_map.color(1.01) == heat_map.color(1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--job=knn", "--neighbors=97"), "--neighbors=97: must be 1..96"),
        (("--job=knn", "--temperature=0"), "--temperature=0.0: must be positive"),
        (
            ("--job=knn", "--neighbors=5", "--layers=stage9"),
            "--layers='stage9' is no layer of tiny",
        ),
        (("--job=cka", "--others=nowhere"), "nowhere holds no network"),
        (("--job=few-shot",), "config.few_shot.ways=5: the data has 4 classes"),
        (("--job=cka", "--neighbors=3"), "--neighbors is a flag of --job=knn"),
        (("--job=few-shots",), "--job='few-shots' is unknown; did you mean 'few-shot'"),
    ],
)
def test_bad_flags(call, run, flags, message):
    status, _, errors = call(*flags, f"--workdir={run}")
    assert status == 2 and len(errors) == 1
    assert errors[0].startswith("error: ") and message in errors[0]


def test_a_network_without_a_run_needs_data(call, network):
    status, _, errors = call("--job=cka", f"--workdir={network}")
    assert status == 2 and "holds a network and no data: add --config" in errors[0]


def test_names_of_more_classes_than_a_network_has_are_refused(network, monkeypatch):
    monkeypatch.setattr(predicting.store, "read_class_names", lambda directory: ("a", "b"))
    with pytest.raises(UserError, match=r"tiny has 3 classes, .*tiny has 2$"):
        predicting.opened(network, None, "latest", ())


def test_the_job_of_a_config_is_one(call, tmp_path):
    config = f"--config={runs.ROOT}/configs/few_shot.py"
    status, _, errors = call(config, "--config.job=fewshot", f"--workdir={tmp_path}")
    assert status == 2 and "'fewshot' is unknown; did you mean 'few-shot'" in errors[0]
