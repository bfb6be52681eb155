"""Images with masks that are streamed are those that are held, to the bit."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import kdjax
from kdjax import config as configs
from kdjax import data
from kdjax.data import ArraySplit, RecordSplit, dataset
from kdjax.data.feed import Feed
from kdjax.errors import UserError
from kdjax.parallel import Parallel
from kdjax.training import stages
from kdjax.training.preemption import Preempted, Preemption
from tests.tiny_runs import masks as tiny
from tests.tiny_runs import networks  # noqa: F401 (registers 'tiny')

STORED = ("image", "masks", "sizes", "label")


def configured(source: str, **changes):
    config = configs.base()
    config.batch_size, config.evaluation.batch_size = 3, 4
    config.data.source, config.data.augmentation = source, "none"
    config.data.update(changes)
    return config


def feed_of(source: str, **changes) -> Feed:
    config = configured(source, **changes)
    return Feed(config, data.load(config), Parallel("pmap"), 2)


def steps_of(feed: Feed, epoch: int, first: int = 0) -> list[dict[str, np.ndarray]]:
    """Every step's batch, looked up in what is held on the device where it is."""
    found = []
    for steps, batches in feed.train(epoch, first):
        for step in range(steps):
            batch = jax.tree.map(lambda x, step=step: np.asarray(x)[0, step], batches)
            found.append(looked_up(feed, "train", batch))
    return found


def looked_up(feed: Feed, split: str, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if not feed.resident:
        return batch
    held = getattr(feed.dataset, split)
    arrays = dict(zip(STORED, (held.images, held.masks, held.sizes, held.labels), strict=True))
    return batch | {name: array[batch["index"]] for name, array in arrays.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("folder")
    tiny.write_layout(root, "folders", count=9)
    return f"masks:{root}"


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_streamed_batches_are_those_held_in_memory(folder, workers):
    """Images that are scaled down and padded, from any step on, and a part of the images."""
    canvas = {"canvas": (8, 11), "train_fraction": 0.8}
    held = feed_of(folder, placement="device", **canvas)
    streamed = feed_of(folder, placement="stream", workers=workers, **canvas)
    assert held.resident and isinstance(streamed.dataset.train, RecordSplit)
    assert held.steps_per_epoch == streamed.steps_per_epoch == 2
    for name in ("mean", "std", "image_shape", "class_names"):
        np.testing.assert_array_equal(getattr(held.dataset, name), getattr(streamed.dataset, name))
    for epoch, first in ((0, 0), (1, 0), (1, 1)):
        one, other = steps_of(held, epoch, first), steps_of(streamed, epoch, first)
        assert len(one) == len(other) == 2 - first
        jax.tree.map(np.testing.assert_array_equal, one, other)
    one, other = (
        [looked_up(f, "test", jax.tree.map(lambda x: np.asarray(x)[0, 0], b)) for b in batches]
        for f, batches in (
            (held, [b for k in held.evaluation() for b in unstacked(k)]),
            (streamed, list(streamed.evaluation())),
        )
    )
    assert [len(batch["mask"]) for batch in other] == [4, 4, 4]
    for batch, expected in zip(other, one, strict=True):
        del batch["label"], expected["label"]
        jax.tree.map(np.testing.assert_array_equal, batch, {name: expected[name] for name in batch})
    np.testing.assert_array_equal(
        streamed.single("test", 3)["masks"][0], held.dataset.test.masks[3]
    )


def unstacked(batches) -> list:
    """The steps of a dispatch, each as a dispatch of one."""
    steps = batches["index"].shape[1]
    return [jax.tree.map(lambda x, i=i: x[:, i : i + 1], batches) for i in range(steps)]


def test_what_takes_more_than_the_budget_is_streamed(folder, tmp_path, monkeypatch):
    arrays = tiny.write_arrays(tmp_path / "it.npz")  # 16 + 5 images of 12x12x(3+1) bytes
    for budget, kind in ((21 * 576, ArraySplit), (21 * 576 - 1, RecordSplit)):
        monkeypatch.setattr(dataset, "DEVICE_BYTES", budget)
        assert isinstance(data.load(configured(arrays)).train, kind)
    assert isinstance(data.load(configured(arrays, placement="device")).train, ArraySplit)
    held, streamed = (steps_of(feed_of(arrays, placement=p), 0) for p in ("device", "stream"))
    jax.tree.map(np.testing.assert_array_equal, held, streamed)


def test_a_bad_mask_is_named_when_it_is_read(tmp_path):
    tiny.write_layout(tmp_path, "folders", count=4)
    source = f"masks:{tmp_path}"
    feed = feed_of(source, placement="stream", mean=(0.5,) * 3, std=(0.5,) * 3)
    for number in range(4):
        tiny.write(tmp_path / "train/masks" / f"train_{number}.png", np.full((5, 12), 7, np.uint8))
    with pytest.raises(UserError, match=r"train_\d\.png: value 7 is no class"):
        steps_of(feed, 0)
    for number in range(4):
        tiny.write(tmp_path / "train/masks" / f"train_{number}.png", np.zeros((5, 12), np.uint8))
    with pytest.raises(UserError, match=r"train_\d\.png: the mask has 5x12 pixels, its image"):
        steps_of(feed, 0)
    # A part of the training images knows its files, too.
    with pytest.raises(UserError, match=r"train_\d\.png: the mask has 5x12 pixels, its image"):
        data.load(configured(source, train_fraction=0.5))


@pytest.mark.slow
def test_an_interrupted_streamed_run_ends_as_one_held_in_memory(folder, tmp_path, monkeypatch):
    from kdjax.cli.command_line import parse

    def config(**changes):
        flags = tiny.settings(
            folder, batch_size=3, segmentation__crop=(8, 8), data__canvas=(8, 11), **changes
        )
        return parse(["kdjax", *flags, "--workdir=unused"]).config

    stages.train(config(data__placement="device"), tmp_path / "held")
    streamed = config(data__placement="stream", data__workers=1)
    with monkeypatch.context() as patch:
        patch.setattr(Preemption, "requested", lambda self, step: step == 4)
        with pytest.raises(Preempted):
            stages.train(streamed, tmp_path / "streamed")
    stages.train(streamed, tmp_path / "streamed")
    one, other = (kdjax.load_run(tmp_path / name) for name in ("held", "streamed"))
    states = [run.restore("latest").state for run in (one, other)]
    jax.tree.map(np.testing.assert_array_equal, *states)
    assert one.rows[-1]["mean/miou"] == other.rows[-1]["mean/miou"]
    assert states[0].step == 6
