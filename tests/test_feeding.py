"""Dispatches, resumption in the middle of an epoch, and resident against streamed sets."""

import jax
import numpy as np
import pytest

from kdjax import config as configs
from kdjax import data, feeding
from kdjax.data import ArraySplit, Dataset, RecordSplit
from kdjax.parallel import AXIS, Parallel
from tests import runs
from tests.data.conftest import write_folder


@pytest.mark.parametrize("most", [1, 2, 3, 7, 10, 100])
@pytest.mark.parametrize("steps", [1, 2, 5, 12, 23, 97, 390])
def test_dispatches_cover_the_epoch(steps, most):
    lengths = feeding.dispatch_lengths(steps, most)
    assert sum(lengths) == steps
    if len(set(lengths)) > 1:
        assert not any(steps % length == 0 for length in range(-(-most // 2), most + 1))
    assert min(lengths) >= 1 and max(lengths) <= most
    # Two programs at most are compiled, the shorter one for the last dispatch.
    assert len(set(lengths[:-1])) <= 1 and lengths[-1] <= lengths[0]


def test_equal_dispatches_where_half_the_length_or_more_divides_the_epoch():
    assert feeding.dispatch_lengths(390, 100) == (78,) * 5
    assert feeding.dispatch_lengths(12, 5) == (4, 4, 4)
    assert feeding.dispatch_lengths(97, 10) == (10,) * 9 + (7,)
    assert feeding.dispatch_lengths(3, 100) == (3,)


def make_feed(source, most=3, **changes):
    config = configs.base()
    config.batch_size, config.evaluation.batch_size = 4, 5
    config.data.source = source
    config.data.update(changes)
    return feeding.Feed(config, data.load(config), Parallel("pmap"), most)


def steps_of(feed, epoch, first=0):
    """Every step's batch `[devices, batch per device, ...]`, whatever dispatch it came in."""
    found = []
    for steps, batches in feed.train(epoch, first):
        found += [jax.tree.map(lambda x, i=i: np.asarray(x)[:, i], batches) for i in range(steps)]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return f"folder:{write_folder(tmp_path_factory.mktemp('images'), per_class=7)}"


@pytest.mark.parametrize("placement", ["device", "stream"])
@pytest.mark.parametrize("first", [1, 2, 3, 4])
def test_resumed_epoch_is_the_tail_of_the_whole_one(folder, placement, first):
    feed = make_feed(folder, most=3, placement=placement, image_size=8)
    assert feed.lengths == (3, 2) and feed.resident == (placement == "device")
    whole, tail = steps_of(feed, 3), steps_of(feed, 3, first)
    assert len(whole) == 5 and len(tail) == 5 - first
    for expected, actual in zip(whole[first:], tail, strict=True):
        jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_resumed_epoch_is_cut_where_the_whole_one_is(folder):
    feed = make_feed(folder, most=3, image_size=8)
    assert [steps for steps, _ in feed.train(0, 0)] == [3, 2]
    assert [steps for steps, _ in feed.train(0, 1)] == [2, 2]
    assert [steps for steps, _ in feed.train(0, 3)] == [2]
    assert [steps for steps, _ in feed.train(0, 4)] == [1]


def test_epochs_differ(folder):
    feed = make_feed(folder, image_size=8)
    one, other = (np.stack([b["index"] for b in steps_of(feed, epoch)]) for epoch in (0, 1))
    assert (one != other).any()


@pytest.mark.parametrize("augmentation", ["none", "crop_flip"])
def test_resident_and_streamed_give_the_same_batches(folder, augmentation):
    resident, streamed = (
        make_feed(folder, placement=placement, image_size=8, augmentation=augmentation)
        for placement in ("device", "stream")
    )

    def inputs(feed):
        prepare = feeding.train_input(feed.dataset, augmentation)
        positions = np.arange(4)
        prepare = jax.vmap(prepare, in_axes=(None, 0, None, None), axis_name=AXIS)
        constants = feed.constants("train")
        key = jax.random.key(1)
        return [prepare(constants, batch, key, positions) for batch in steps_of(feed, 0)]

    one, other = inputs(resident), inputs(streamed)
    assert len(one) == 5
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert np.ptp(one[0]["image"]) > 1


def test_an_image_is_augmented_by_its_position_in_the_global_batch(folder):
    feed = make_feed(folder, image_size=8)
    prepare = feeding.train_input(feed.dataset, "crop_flip")
    constants, key = feed.constants("train"), jax.random.key(0)

    def images(positions, indices):
        batch = {"index": np.asarray(indices)}
        return np.asarray(prepare(constants, batch, key, np.asarray(positions))["image"])

    whole = images([0, 1, 2, 3], [5, 5, 6, 7])
    np.testing.assert_array_equal(images([2, 3], [6, 7]), whole[2:])
    assert (whole[0] != whole[1]).any()


@pytest.mark.parametrize("placement", ["device", "stream"])
def test_evaluation_shows_every_image_once(folder, placement):
    feed = make_feed(folder, placement=placement, image_size=8, most=2)
    seen = []
    for batch in feed.test():
        indices, mask = np.asarray(batch["index"]), np.asarray(batch["mask"])
        seen += indices[mask == 1].tolist()
        assert set(np.unique(mask)) <= {0, 1}
    assert sorted(seen) == list(range(21))


def test_arrays_are_resident(tmp_path):
    feed = make_feed(runs.write_arrays(tmp_path / "tiny.npz"))
    assert set(feed.constants("train")) == {"image", "label"}
    assert feed.constants("test")["image"].shape == (30, 8, 8, 3)


@pytest.mark.parametrize(
    ("backend", "streamed", "size", "steps"),
    [("cpu", False, 32, 1), ("gpu", False, 32, 100), ("gpu", True, 224, 6), ("tpu", True, 32, 100)],
)
def test_automatic_steps_keep_a_streamed_dispatch_small(
    monkeypatch, backend, streamed, size, steps
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    kind = RecordSplit if streamed else ArraySplit
    split = kind(np.zeros((1, 1, 1, 3), np.uint8), np.zeros(1, np.int32))
    dataset = Dataset("x", split, split, ("a",), (size, size, 3), np.zeros(3), np.ones(3))
    assert feeding.automatic_steps(dataset, batch_size=256) == steps
