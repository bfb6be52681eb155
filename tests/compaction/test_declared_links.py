"""Links from a list say what those from the jaxpr say."""

from __future__ import annotations

import numpy as np
import pytest

from kdjax import compaction
from kdjax.compaction import Feed
from kdjax.errors import UserError
from kdjax.tree import nested
from tests.compaction import test_cut

FEEDS = [
    Feed(["stem", "block/conv2"], ["block/conv1", "plain"], depthwise=["depthwise"]),
    Feed(["block/conv1"], ["block/conv2"]),
    Feed(["plain"], ["hidden"]),
    Feed(["hidden"], ["classifier"]),
]


def arrays():
    """The network of `test_cut`, without its concatenation."""
    random = np.random.default_rng(0)
    flat = {path: array for path, array in test_cut.arrays(0).items() if "side" not in path}
    flat["depthwise/kernel"] = random.normal(size=(3, 3, 1, 6)).astype(np.float32)
    flat["depthwise/bias"] = random.normal(size=6).astype(np.float32)
    flat["plain/kernel"] = random.normal(size=(2, 2, 6, 7)).astype(np.float32)
    return flat


def declared(flat, feeds=FEEDS, **options):
    return compaction.links(nested(flat), feeds, norms={"block/conv1": "block/norm"}, **options)


def test_declared_links_cut_as_declared():
    flat = arrays()
    links = declared(flat)
    found = {link.name: link for link in links}
    assert found["stem_tied"].consumers == ("block/conv1/kernel", "plain/kernel")
    assert found["stem_tied"].depthwise == ("depthwise/kernel",)
    assert found["plain"].consumers == ("hidden/kernel",)
    assert {name for name, link in found.items() if link.reason} == {"classifier"}
    masks = {}
    for group in links.groups():
        masks[group.name] = np.arange(flat[group.scored[0]].shape[-1]) % 3 > 0
        for path in group.leaves:
            flat[path] = flat[path] * masks[group.name]
    smaller = compaction.cut(nested(flat), links, masks)
    kept = smaller.params
    assert not smaller.stays
    assert kept["block"]["conv1"]["kernel"].shape == (3, 3, 4, 3)
    rows = flat["hidden/kernel"].reshape(9, 7, 9)[:, masks["plain"]][..., masks["hidden"]]
    np.testing.assert_array_equal(kept["hidden"]["kernel"], rows.reshape(-1, 6))


def test_constants_move_behind_convolutions_without_padding():
    flat = arrays()
    flat["plain/kernel"][..., 2] = 0
    smaller = compaction.cut(nested(flat), declared(flat), {"plain": np.arange(7) != 2})
    constant = max(flat["plain/bias"][2], 0)
    moved = constant * flat["hidden/kernel"].reshape(9, 7, 9)[:, 2].sum(0)
    np.testing.assert_allclose(
        smaller.params["hidden"]["bias"], flat["hidden/bias"] + moved, rtol=1e-5, atol=1e-6
    )


def test_filters_first():
    shapes = {"a/weight": (4, 3, 3, 3), "a/bias": (4, 1, 1), "b/weight": (5, 36), "b/bias": (5,)}
    random = np.random.default_rng(0)
    params = nested({path: random.normal(size=shape) for path, shape in shapes.items()})
    params["a"]["weight"][1] = 0
    links = compaction.links(params, [Feed(["a"], ["b"])], filters_first=True)
    (group,) = links.groups()
    assert group.filter_axis == 0
    assert group.settled == ("a/bias",)
    smaller = compaction.cut(params, links)
    assert smaller.params["a"]["weight"].shape == (3, 3, 3, 3)
    assert smaller.params["a"]["bias"].shape == (3, 1, 1)
    expected = params["b"]["weight"].reshape(5, 4, 9)[:, [0, 2, 3]].reshape(5, 27)
    np.testing.assert_array_equal(smaller.params["b"]["weight"], expected)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ([Feed(["stern"], ["plain"])], "no layer 'stern' with an array kernel or weight"),
        ([*FEEDS, Feed(["plain"], ["side"])], "'plain' is among the layers of two feeds"),
        ([Feed([], ["plain"])], r"a feed of \('plain',\) names no layers"),
        ([Feed(["stem"], ["hidden"])], "63 inputs cannot read 6 channels"),
        ([Feed(["hidden"], ["hidden"])], "'hidden' reads its own output|cannot read"),
    ],
)
def test_refusals(feeds, message):
    with pytest.raises(UserError, match=message):
        declared(arrays(), feeds)
