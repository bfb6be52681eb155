"""Dispatches, resumption in the middle of an epoch, and resident against streamed sets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import config as configs
from kdjax import data
from kdjax.data import ArraySplit, Dataset, RecordSplit, augment, images, policies, preprocessing
from kdjax.data.dispatches import automatic_steps, dispatch_lengths
from kdjax.data.feed import Feed
from kdjax.errors import UserError
from kdjax.parallel import AXIS, Parallel
from kdjax.runs import metrics
from kdjax.training import stages
from kdjax.training.building import build
from tests import tiny_runs as runs
from tests.data.conftest import write_folder
from tests.tiny_runs import networks  # noqa: F401
from tests.tiny_runs.first_batch import AUGMENTATIONS, first_batch


@pytest.mark.parametrize("most", [1, 2, 3, 7, 10, 100])
@pytest.mark.parametrize("steps", [1, 2, 5, 12, 23, 97, 390])
def test_dispatches_cover_the_epoch(steps, most):
    lengths = dispatch_lengths(steps, most)
    assert sum(lengths) == steps
    if len(set(lengths)) > 1:
        assert not any(steps % length == 0 for length in range(-(-most // 2), most + 1))
    assert min(lengths) >= 1 and max(lengths) <= most
    # Two programs at most are compiled, the shorter one for the last dispatch.
    assert len(set(lengths[:-1])) <= 1 and lengths[-1] <= lengths[0]


def test_equal_dispatches_where_half_the_length_or_more_divides_the_epoch():
    assert dispatch_lengths(390, 100) == (78,) * 5
    assert dispatch_lengths(12, 5) == (4, 4, 4)
    assert dispatch_lengths(97, 10) == (10,) * 9 + (7,)
    assert dispatch_lengths(3, 100) == (3,)


def make_feed(source, most=3, **changes):
    config = configs.base()
    config.batch_size, config.evaluation.batch_size = 4, 5
    config.data.source = source
    config.data.update(changes)
    return Feed(config, data.load(config), Parallel("pmap"), most)


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
        prepare = preprocessing.train_input(feed.dataset, augmentation)
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
    prepare = preprocessing.train_input(feed.dataset, "crop_flip")
    constants, key = feed.constants("train"), jax.random.key(0)

    def images(positions, indices):
        batch = {"index": np.asarray(indices)}
        return np.asarray(prepare(constants, batch, key, np.asarray(positions))["image"])

    whole = images([0, 1, 2, 3], [5, 5, 6, 7])
    np.testing.assert_array_equal(images([2, 3], [6, 7]), whole[2:])
    assert (whole[0] != whole[1]).any()


@pytest.fixture
def invert(monkeypatch):
    """The policy 'invert': mirrored or not at random by the image's key, and always inverted."""

    def one(key, image):
        return 255 - jnp.where(jax.random.bernoulli(key), image[::-1], image)

    monkeypatch.setattr(policies.POLICIES, "_entries", {**policies.POLICIES._entries})
    data.register_policy("invert", jax.vmap(one))
    return ("invert",)


def method_batch(feed, *, policy_names=(), parts=1, key=1):
    """The whole first batch as a method gets it, made in `parts`, one per device."""
    data_ = feed.config.data
    prepare = preprocessing.train_input(
        feed.dataset, data_.augmentation, views=data_.views, policy_names=policy_names
    )
    batch = jax.tree.map(lambda x: x[0], steps_of(feed, 0)[0])
    size = len(batch["index"]) // parts
    prepare, made = jax.jit(prepare), []
    for part in range(parts):
        rows = slice(part * size, (part + 1) * size)
        own = jax.tree.map(lambda x, rows=rows: x[rows], batch)
        positions = np.arange(part * size, (part + 1) * size)
        made.append(prepare(feed.constants("train"), own, jax.random.key(key), positions))
    return jax.tree.map(lambda *each: np.concatenate(each), *made)


def make_images(folder, augmentation, **changes):
    return make_feed(folder, image_size=8, augmentation=augmentation, **changes)


@pytest.mark.parametrize(
    ("augmentation", "with_policy"), [("crop_flip", False), ("resized_crop_flip", True)]
)
def test_first_view_is_the_image_there_would_be_without_others(
    folder, augmentation, with_policy, invert
):
    names = invert if with_policy else ()
    plain = method_batch(make_images(folder, augmentation), policy_names=names)
    three = method_batch(make_images(folder, augmentation, views=3), policy_names=names)
    assert set(plain) == {"image", "label", "index"}
    assert set(three) == {*plain, "views"} and three["views"].shape == (4, 3, 8, 8, 3)
    np.testing.assert_array_equal(three["views"][:, 0], three["image"])
    for name, values in plain.items():
        np.testing.assert_array_equal(three[name], values)
    assert all(len({view.tobytes() for view in image}) > 1 for image in three["views"])


def test_keys_of_views_are_none_that_the_augmentation_of_another_draws_from():
    (keys,) = preprocessing._image_keys(jax.random.key(0), jnp.arange(3, 4), 4)
    policy = jax.vmap(jax.random.fold_in, (0, None))(keys, preprocessing._POLICIES)
    drawn = jax.vmap(lambda key: jax.random.split(key, 32))(keys).reshape(-1)
    every = np.asarray(jax.random.key_data(jnp.concatenate([keys, policy, drawn])))
    assert len(np.unique(every, axis=0)) == len(every) == 4 + 4 + 128


def test_flips_of_views_are_independent():
    ramp = np.broadcast_to(np.arange(8, dtype=np.uint8)[None, :, None], (8, 8, 3))
    split = ArraySplit(np.stack([ramp] * 64), np.zeros(64, np.int32))
    dataset = Dataset("x", split, split, ("a",), (8, 8, 3), np.zeros(3), np.ones(3))
    prepare = jax.jit(preprocessing.train_input(dataset, "resized_crop_flip", views=5))
    constants = {"image": split.images, "label": split.labels}
    index = np.arange(64)
    views = np.asarray(prepare(constants, {"index": index}, jax.random.key(0), index)["views"])
    flipped = views[:, :, 0, 0, 0] > views[:, :, 0, -1, 0]
    agree = np.mean(flipped[:, :, None] == flipped[:, None, :], axis=0)
    assert (np.abs(agree[~np.eye(5, dtype=bool)] - 0.5) < 0.25).all()  # 4 standard deviations
    assert (np.abs(flipped.mean(0) - 0.5) < 0.25).all()


def test_views_and_policies_do_not_depend_on_the_number_of_devices(folder, invert):
    feed = make_images(folder, "resized_crop_flip", views=2, partners=1)
    whole = method_batch(feed, policy_names=invert)
    assert whole["views"].shape == (8, 2, 8, 8, 3)
    parts = method_batch(feed, policy_names=invert, parts=4)
    jax.tree.map(np.testing.assert_array_equal, parts, whole)


@pytest.mark.slow
def test_four_devices_see_the_images_that_one_sees(folder, tmp_path):
    process = runs.start(folder, tmp_path, module="tests.tiny_runs.first_batch", devices=4)
    alone = {name: first_batch(folder, name) for name in AUGMENTATIONS}
    runs.finish(process)
    for name, whole in alone.items():
        assert whole["views"].shape == (16, 2, 8, 8, 3)
        jax.tree.map(np.testing.assert_array_equal, dict(np.load(tmp_path / f"{name}.npz")), whole)


def test_policies_see_what_was_cropped_and_flipped(folder, invert):
    feed = make_images(folder, "crop_flip", views=2)
    mean, std = feed.dataset.mean, feed.dataset.std
    plain, with_policy = method_batch(feed), method_batch(feed, policy_names=invert)

    def pixels(batch):
        return np.round((batch["views"] * std + mean) * 255).astype(np.uint8)

    before, after = (
        pixels(plain).reshape(-1, 8, 8, 3),
        255 - pixels(with_policy).reshape(-1, 8, 8, 3),
    )
    same = [(a == b).all() for a, b in zip(before, after, strict=True)]
    mirrored = [(a[::-1] == b).all() for a, b in zip(before, after, strict=True)]
    assert all(np.logical_or(same, mirrored)) and any(same) and any(mirrored)


def top_left(pixels, size, generator):
    """Of a user's: the corner, with a pixel at random."""
    corner = pixels[:size, :size].copy()
    corner[0, 0] = generator.integers(256)
    return corner


def test_a_registered_augmentation(folder, monkeypatch):
    monkeypatch.setattr(augment.AUGMENTATIONS, "_entries", {**augment.AUGMENTATIONS._entries})
    data.register_augmentation(
        "corner", lambda key, images: images, crop=top_left, evaluation_crop=0.5
    )
    feed = make_images(folder, "corner", views=2)
    assert not feed.resident
    (batch, *_) = steps_of(feed, 0)
    assert batch["image"].shape == (1, 4, 2, 8, 8, 3)
    for index, views in zip(batch["index"][0], batch["image"][0], strict=True):
        stored = feed.dataset.train.records[int(index)]
        for view in views:
            np.testing.assert_array_equal(view[1:], stored[1:8, :8])
    test = next(iter(feed.evaluation()))
    expected = images.fit(feed.dataset.test.records[0], 8, resize_to=16)
    np.testing.assert_array_equal(test["image"][0, 0, 0], expected)


def test_cutout_leaves_what_is_nothing_after_normalization(folder):
    feed = make_images(folder, "none", views=2)
    before = method_batch(feed)["views"]
    after = method_batch(feed, policy_names=("cutout",))["views"]
    cut = (before != after).any(-1)
    assert cut.any((2, 3)).all() and cut.mean() < 0.1
    assert (np.abs(after[cut]) <= 0.5 / 255 / feed.dataset.std + 1e-6).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"views": 0}, "config.data.views=0: must be at least 1"),
        ({"partners": -1}, "config.data.partners=-1"),
        ({"partners": 1, "images_per_class": 2}, "set one of them to 0"),
        ({"policies": ("cutout", "cutuot")}, "'cutuot' is unknown; did you mean 'cutout'"),
        ({"augmentation": "flop"}, "config.data.augmentation='flop'"),
    ],
)
def test_settings_are_checked_before_data_are_opened(changes, message):
    config = configs.base()
    config.data.update(source="folder:/no/such/folder", **changes)
    with pytest.raises(UserError, match=message) as error:
        build(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("placement", ["device", "stream"])
@pytest.mark.parametrize("partners", [1, 2])
def test_devices_get_whole_groups(folder, monkeypatch, placement, partners):
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    monkeypatch.setattr(jax, "local_device_count", lambda: 2)
    feed = make_feed(folder, placement=placement, image_size=8, partners=partners)
    assert feed.images_per_step == 4 * (1 + partners) and feed.steps_per_epoch == 5
    batches = steps_of(feed, 0)
    assert len(batches) == 5
    anchors = []
    for batch in batches:
        assert batch["index"].shape == (2, 2 * (1 + partners))
        groups = batch["index"].reshape(4, 1 + partners)
        labels = feed.dataset.train.labels[groups]
        assert (labels == labels[:, :1]).all() and (groups[:, 1:] != groups[:, :1]).all()
        anchors += groups[:, 0].tolist()
    assert len(set(anchors)) == 20


def test_processes_read_whole_groups(folder, monkeypatch):
    """Two processes of one device: together what one process of two devices reads."""
    read = []
    for process in (0, 1):
        feed = make_feed(folder, placement="stream", image_size=8, partners=2)
        feed.parallel.device_count, feed.parallel.local_device_count = 2, 1
        with monkeypatch.context() as patch:
            patch.setattr(jax, "process_index", lambda process=process: process)
            patch.setattr(jax, "process_count", lambda: 2)
            read.append(np.stack([batch["index"][0] for batch in steps_of(feed, 0)]))
    alone = make_feed(folder, placement="stream", image_size=8, partners=2)
    whole = np.stack([batch["index"][0] for batch in steps_of(alone, 0)])
    assert whole.shape == (5, 4 * 3)
    np.testing.assert_array_equal(np.concatenate(read, axis=1), whole)


@pytest.mark.parametrize("placement", ["device", "stream"])
def test_evaluation_shows_every_image_once(folder, placement):
    feed = make_feed(folder, placement=placement, image_size=8, most=2)
    seen = []
    for batch in feed.evaluation():
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
@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({}, 1),
        ({"partners": 2}, 3),
        ({"views": 2}, 1),
        ({"views": 2, "augmentation": "resized_crop_flip"}, 2),
    ],
)
def test_automatic_steps_keep_a_streamed_dispatch_small(
    monkeypatch, backend, streamed, size, steps, changes, part
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    kind = RecordSplit if streamed else ArraySplit
    split = kind(np.zeros((1, 1, 1, 3), np.uint8), np.zeros(1, np.int32))
    dataset = Dataset("x", split, split, ("a",), (size, size, 3), np.zeros(3), np.ones(3))
    config = configs.base()
    config.batch_size = 256
    config.data.update(changes)
    most = automatic_steps(dataset, config)
    held = min(100, 2**28 // (256 * size * size * 3 * part))
    assert most == (held if streamed else steps)
    assert part > 1 or most == steps


@pytest.fixture(params=["val", "test"])
def birds(request, tmp_path):
    """Images of several sizes, as fine-grained sets have them."""
    sizes = ((250, 240), (40, 230))
    return write_folder(tmp_path / "birds", held_out=request.param, sizes=sizes)


def test_batches_of_uneven_images_at_224_pixels(birds):
    changes = {"image_size": 224, "augmentation": "resized_crop_flip", "views": 2, "partners": 1}
    feed = make_feed(f"folder:{birds}", most=1, **changes)
    assert not feed.resident
    images = [batch["image"] for batch in steps_of(feed, 0)]
    assert [each.shape for each in images] == [(1, 8, 2, 224, 224, 3)] * 3
    tests = [(batch["image"].shape, batch["mask"].sum()) for batch in feed.evaluation()]
    assert tests == [((1, 1, 5, 224, 224, 3), count) for count in (5, 5, 2)]


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"views": 2, "partners": 1}])
def test_run_on_uneven_images_at_224_pixels(birds, tmp_path, changes):
    config = configs.base()
    config.networks, config.epochs, config.batch_size = ("tiny",), 1, 6
    config.evaluation.batch_size = 5
    config.data.update(source=f"folder:{birds}", image_size=224)
    config.data.update(augmentation="resized_crop_flip", **changes)
    found = stages.train(config, tmp_path / "run")
    (row,) = metrics.read(tmp_path / "run" / "metrics.jsonl")
    assert row["step"] == 2 and np.isfinite(row["train/loss"]) and row["images_per_second"] > 0
    assert (found["network_0/top1"] * 12) % 1 == pytest.approx(0, abs=1e-5)
