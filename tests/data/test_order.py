"""The order of an epoch: what it promises to the contrastive losses and to resumed runs."""

import numpy as np
import pytest

from kdjax.data.order import epoch_order, evaluation_order, steps_per_epoch
from kdjax.errors import UserError


def balanced(classes=10, images=20, seed=0):
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(classes), images))


def check_groups(order, labels, m):
    """Every row: groups of m different images of one class, no class twice."""
    groups = order.reshape(len(order), -1, m)
    group_labels = labels[groups]
    assert (group_labels == group_labels[..., :1]).all()
    for row in groups:
        assert len(np.unique(labels[row[:, 0]])) == len(row)
        assert all(len(set(group)) == m for group in row.tolist())


def test_plain_order_visits_each_image_at_most_once():
    labels = balanced()
    order = epoch_order(labels, seed=1, epoch=0, batch_size=32)
    assert order.shape == (200 // 32, 32)
    assert order.dtype == np.int32
    assert len(np.unique(order)) == order.size
    assert order.min() >= 0
    assert order.max() < 200


@pytest.mark.parametrize("companions", [{}, {"images_per_class": 2}, {"partners": 3}])
def test_order_is_a_function_of_seed_and_epoch(companions):
    def order(seed, epoch):
        return epoch_order(balanced(), seed=seed, epoch=epoch, batch_size=16, **companions)

    np.testing.assert_array_equal(order(3, 4), order(3, 4))
    assert (order(3, 4) != order(3, 5)).any()
    assert (order(3, 4) != order(4, 4)).any()
    # (seed, epoch) must not be mixed into one number: seed 1, epoch 0 is not seed 0, epoch 1.
    assert (order(1, 0) != order(0, 1)).any()


@pytest.mark.parametrize(("m", "batch_size"), [(2, 16), (2, 20), (4, 32), (5, 50), (3, 12)])
def test_groups_in_a_balanced_set(m, batch_size):
    labels = balanced()
    order = epoch_order(labels, seed=0, epoch=2, batch_size=batch_size, images_per_class=m)
    assert order.shape == (200 // batch_size, batch_size)
    assert order.dtype == np.int32
    check_groups(order, labels, m)
    # 20 is no multiple of 3: up to two images of each class then come in the wrapped groups.
    wrapped = 0 if 20 % m == 0 else 10 * (20 % m)
    assert len(np.unique(order)) >= order.size - wrapped


def test_groups_cover_a_set_as_large_as_cifar100():
    labels = balanced(100, 500)
    order = epoch_order(labels, seed=0, epoch=0, batch_size=128, images_per_class=2)
    assert order.shape == (390, 128)
    check_groups(order, labels, 2)
    assert len(np.unique(order)) == 390 * 128


def test_unbalanced_set_keeps_its_steps_and_repeats_few_images():
    labels = np.repeat(np.arange(6), [3, 5, 40, 9, 2, 17])
    order = epoch_order(labels, seed=0, epoch=0, batch_size=8, images_per_class=2)
    assert order.shape == (76 // 8, 8)
    check_groups(order, labels, 2)
    used = np.bincount(labels[np.unique(order)], minlength=6)
    # The small classes are used up before the order begins to repeat them.
    assert (used[[0, 1, 3, 4]] == [3, 5, 9, 2]).all()


def test_mildly_unbalanced_set_repeats_nothing():
    labels = np.repeat(np.arange(5), [10, 12, 12, 10, 14])
    order = epoch_order(labels, seed=5, epoch=1, batch_size=8, images_per_class=2)
    check_groups(order, labels, 2)
    assert len(np.unique(order)) == order.size


def test_the_class_order_within_a_batch_is_random():
    labels = balanced()
    order = epoch_order(labels, seed=0, epoch=0, batch_size=20, images_per_class=2)
    rows = labels[order[:, ::2]]
    assert len({tuple(row) for row in rows.tolist()}) == len(rows)
    assert (np.diff(rows, axis=1) < 0).any(axis=1).all()


UNEVEN = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 4], [2, 3, 40, 15]))


def with_partners(labels, k, batch_size, epoch=0):
    """Groups `[steps, anchors, 1 + k]` of image numbers."""
    rows = epoch_order(labels, seed=1, epoch=epoch, batch_size=batch_size, partners=k)
    assert rows.shape == (len(labels) // batch_size, batch_size * (1 + k))
    assert rows.dtype == np.int32
    return rows.reshape(len(rows), batch_size, 1 + k)


@pytest.mark.parametrize("k", [1, 2, 3, 14, 20])
@pytest.mark.parametrize("labels", [balanced(), UNEVEN])
def test_partners_are_other_images_of_the_anchor_s_class(labels, k):
    groups = with_partners(labels, k, 7).reshape(-1, 1 + k)
    assert (labels[groups] == labels[groups[:, :1]]).all()
    assert (groups[:, 1:] != groups[:, :1]).all()
    sizes = np.bincount(labels)[labels[groups[:, 0]]]
    different = np.array([len(set(group)) for group in groups.tolist()])
    assert (different[sizes > k] == 1 + k).all()
    assert (different[sizes <= k] <= sizes[sizes <= k]).all()
    assert (sizes > k).any() or k == 20


@pytest.mark.parametrize("batch_size", [1, 7, 60])
def test_anchors_are_the_plain_shuffle(batch_size):
    anchors = with_partners(UNEVEN, 2, batch_size, epoch=3)[..., 0]
    plain = epoch_order(UNEVEN, seed=1, epoch=3, batch_size=batch_size)
    np.testing.assert_array_equal(anchors, plain)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_every_other_image_is_as_likely_in_every_place_of_partners(k):
    """Chi-squared over 4,000 epochs, for every anchor and place, with replacement and without."""
    labels = np.array([0] * 4 + [1] * 2)
    counts = np.zeros((k, 6, 6))
    for epoch in range(4000):
        groups = with_partners(labels, k, 6, epoch)[0]
        for place in range(k):
            counts[place, groups[:, 0], groups[:, 1 + place]] += 1
    big, small = counts[:, :4, :4], counts[:, 4:, 4:]
    assert (small == 4000 * (1 - np.eye(2))).all()
    expected = 4000 / 3
    off = ~np.eye(4, dtype=bool)
    assert (big[:, ~off] == 0).all()
    assert (((big[:, off] - expected) ** 2 / expected).sum(-1) < 35).all()  # 8 degrees: p = 3e-5


def test_partners_of_an_anchor_are_drawn_for_it_alone():
    labels = balanced(2, 50)
    groups = with_partners(labels, 1, 100)[0]
    again = with_partners(labels, 1, 100, epoch=1)[0]
    partner, other = np.empty(100, int), np.empty(100, int)
    partner[groups[:, 0]], other[again[:, 0]] = groups[:, 1], again[:, 1]
    # Not a matching of images, and another one in the next epoch.
    assert len(set(partner)) < 80 and np.mean(partner[partner] == np.arange(100)) < 0.2
    assert np.mean(partner == other) < 0.2


@pytest.mark.parametrize(("k", "devices"), [(1, 4), (3, 2), (2, 1)])
def test_a_device_s_slice_holds_whole_groups(k, devices):
    labels = balanced()
    rows = epoch_order(labels, seed=0, epoch=0, batch_size=8, partners=k)
    for part in np.split(rows, devices, axis=1):
        groups = labels[part].reshape(len(part), 8 // devices, 1 + k)
        assert (groups == groups[..., :1]).all()


def test_partners_in_a_set_as_large_as_imagenet():
    labels = np.random.default_rng(0).integers(0, 1000, 1_281_167)
    groups = with_partners(labels, 1, 256).reshape(-1, 2)
    assert len(np.unique(groups[:, 0])) == len(groups) == 5004 * 256
    assert (labels[groups[:, 0]] == labels[groups[:, 1]]).all()
    assert (groups[:, 0] != groups[:, 1]).all()


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (balanced(), {"batch_size": 8, "partners": -1}, "partners=-1: must be 0"),
        (
            balanced(),
            {"batch_size": 8, "partners": 1, "images_per_class": 2},
            "partners=1 and config.data.images_per_class=2 .*; set one of them to 0",
        ),
        (
            np.array([0, 0, 1, 1, 3, 4, 4]),
            {"batch_size": 2, "partners": 1},
            r"partners=1: class 3 has one training image .*config\.data\.partners=0",
        ),
        (balanced(), {"batch_size": 15, "images_per_class": 2}, "batch_size to 14 or 16"),
        (balanced(), {"batch_size": 24, "images_per_class": 2}, "batch_size to at most 20"),
        (balanced(2, 1), {"batch_size": 2, "images_per_class": 2}, "images_per_class=0"),
        (balanced(2, 3), {"batch_size": 4, "images_per_class": 4}, "per_class to at most 3"),
        (balanced(), {"batch_size": 10, "images_per_class": -1}, "at least 2"),
        (balanced(), {"batch_size": 201}, "batch_size to at most 200"),
        (balanced(), {"batch_size": 0}, "config.batch_size=0"),
        (balanced(), {"batch_size": 10, "seed": -1}, "config.seed=-1"),
    ],
)
def test_impossible_orders_name_the_setting(labels, options, message):
    with pytest.raises(UserError, match=message):
        epoch_order(labels, **{"seed": 0, "epoch": 0, **options})


def test_steps_per_epoch_drops_the_remainder():
    assert steps_per_epoch(50000, 128) == 390
    assert steps_per_epoch(128, 128) == 1


@pytest.mark.parametrize(("size", "steps"), [(10, 3), (8, 2), (3, 1)])
def test_evaluation_order_has_every_image_once(size, steps):
    indices, mask = evaluation_order(size, 4)
    assert indices.shape == mask.shape == (steps, 4)
    assert indices.dtype == np.int32
    assert mask.dtype == np.float32
    np.testing.assert_array_equal(indices[mask > 0], np.arange(size))
    assert (indices[mask == 0] == 0).all()


def test_evaluation_order_errors():
    with pytest.raises(UserError, match="is empty"):
        evaluation_order(0, 4)
    with pytest.raises(UserError, match="at least 1"):
        evaluation_order(4, 0)
