"""Streaming: the same batches whatever reads them."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from kdjax.data import images, load, stream
from kdjax.data.order import epoch_order, evaluation_order
from kdjax.errors import UserError

LEFT_OPEN = """
import sys
from kdjax.data import folder, order, stream
split = folder.open_folder(sys.argv[1]).train
rows, mask = order.evaluation_order(12, 2)
batches = stream.evaluation_batches(split, rows, mask, image_size=16, workers=int(sys.argv[2]))
batch = next(batches)
print(batch["image"].shape)
"""


@pytest.fixture
def streamed(uneven_folder, make_config):
    config = make_config(
        source=f"folder:{uneven_folder}", image_size=16, augmentation="resized_crop_flip"
    )
    return load(config)


def train(dataset, **options):
    order = epoch_order(dataset.train.labels, seed=0, epoch=2, batch_size=4)
    defaults = {"epoch": 2, "seed": 0, "image_size": 16, "crop": images.random_resized_crop}
    return list(stream.train_batches(dataset.train, order, **{**defaults, **options}))


def assert_same(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_train_batches_follow_the_order(streamed):
    order = epoch_order(streamed.train.labels, seed=0, epoch=2, batch_size=4)
    batches = train(streamed)
    assert len(batches) == 3
    for row, batch in zip(order, batches, strict=True):
        assert batch["image"].shape == (4, 16, 16, 3)
        assert batch["image"].dtype == np.uint8
        assert batch["label"].dtype == batch["index"].dtype == np.int32
        np.testing.assert_array_equal(batch["index"], row)
        np.testing.assert_array_equal(batch["label"], streamed.train.labels[row])


def test_worker_processes_change_nothing(streamed):
    assert_same(train(streamed, views=2), train(streamed, views=2, workers=2))


def test_resuming_gives_the_tail(streamed):
    assert_same(train(streamed)[1:], train(streamed, first_step=1))
    assert train(streamed, first_step=3) == []


def test_columns_are_this_process_part(streamed):
    whole = train(streamed)
    part = train(streamed, columns=slice(2, 4))
    assert_same([{key: value[2:4] for key, value in batch.items()} for batch in whole], part)


def test_crops_depend_on_seed_and_epoch(streamed):
    first = train(streamed)
    for changed in (train(streamed, seed=1), train(streamed, epoch=3)):
        assert any((a["image"] != b["image"]).any() for a, b in zip(first, changed, strict=True))


def test_an_image_that_comes_again_is_cropped_again(streamed):
    order = np.array([[5, 5, 6], [5, 7, 6]])
    options = {"epoch": 0, "seed": 0, "image_size": 16, "crop": images.random_resized_crop}
    one, other = (
        batch["image"] for batch in stream.train_batches(streamed.train, order, **options)
    )
    fives, sixes = [one[0], one[1], other[0]], [one[2], other[2]]
    for a, b in [*itertools.combinations(fives, 2), sixes]:
        assert (a != b).any()


def test_views_are_crops_of_their_own_and_the_first_is_the_only_one_s(streamed):
    plain, some = train(streamed), train(streamed, views=3)
    assert some[0]["image"].shape == (4, 3, 16, 16, 3)
    assert_same([{**batch, "image": batch["image"][:, 0]} for batch in some], plain)
    for batch in some:
        for views in batch["image"]:
            assert len({view.tobytes() for view in views}) == 3
    for batch, two in zip(some, train(streamed, views=2), strict=True):
        np.testing.assert_array_equal(batch["image"][:, :2], two["image"])


def test_an_image_is_decoded_once_for_all_its_views(streamed, monkeypatch):
    calls = []
    decode = images.decode
    monkeypatch.setattr(
        images, "decode", lambda *args, **kwargs: calls.append(1) or decode(*args, **kwargs)
    )
    assert len(train(streamed, views=3)) == 3
    assert len(calls) == 12


def test_views_that_the_device_makes_are_not_sent(streamed):
    assert_same(
        train(streamed, crop=None, views=3),
        train(streamed, crop=None),
    )


def test_central_crop_without_resized_crop(streamed):
    for batch in train(streamed, crop=None):
        for index, image in zip(batch["index"], batch["image"], strict=True):
            expected = images.fit(streamed.train.records[int(index)], 16)
            np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_iterator_can_be_closed_early(streamed, workers):
    order = epoch_order(streamed.train.labels, seed=0, epoch=0, batch_size=2)
    options = {"epoch": 0, "seed": 0, "image_size": 16}
    batches = stream.train_batches(streamed.train, order, workers=workers, **options)
    assert len(list(itertools.islice(batches, 1))) == 1
    batches.close()
    assert list(batches) == []


@pytest.mark.parametrize("workers", [0, 1])
def test_a_program_may_end_with_an_open_iterator(uneven_folder, workers):
    run = subprocess.run(
        [sys.executable, "-c", LEFT_OPEN, str(uneven_folder), str(workers)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert run.stdout.strip() == "(2, 16, 16, 3)"
    assert run.stderr == ""


def test_evaluation_batches(streamed):
    order, mask = evaluation_order(len(streamed.test.labels), 5)
    read = list(stream.evaluation_batches(streamed.test, order, mask, image_size=16))
    assert [batch["mask"].sum() for batch in read] == [5, 5, 2]
    indices = np.concatenate([batch["index"][batch["mask"] > 0] for batch in read])
    np.testing.assert_array_equal(indices, np.arange(12))
    labels = np.concatenate([batch["label"][batch["mask"] > 0] for batch in read])
    np.testing.assert_array_equal(labels, streamed.test.labels)
    expected = images.fit(streamed.test.records[0], 16, resize_to=18)
    np.testing.assert_array_equal(read[0]["image"][0], expected)
    part = stream.evaluation_batches(streamed.test, order, mask, image_size=16, columns=slice(0, 3))
    assert_same([{key: value[:3] for key, value in batch.items()} for batch in read], list(part))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named(streamed, uneven_folder, workers):
    (uneven_folder / "train" / "bee" / "2.jpg").write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"bee/2\.jpg: unreadable image"):
        train(streamed, workers=workers)


@pytest.mark.parametrize("workers", [-1, 10**6])
def test_numbers_of_workers(streamed, workers):
    with pytest.raises(UserError, match=rf"config\.data\.workers={workers}: must be"):
        train(streamed, workers=workers)
