"""Removal from any network: what is found in the jaxpr, and the logits of the smaller network."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import compaction, pruning
from kdjax.errors import UserError
from kdjax.tree import leaves, nested
from tests.compaction.spread import spread

IMAGES = np.random.default_rng(1).normal(size=(2, 8, 8, 3))
SHAPES = {
    "stem/kernel": (3, 3, 3, 6),
    "stem/bias": (6,),
    "block/conv1/kernel": (3, 3, 6, 5),
    "block/norm/scale": (5,),
    "block/norm/bias": (5,),
    "block/norm/mean": (5,),
    "block/norm/var": (5,),
    "block/conv2/kernel": (3, 3, 5, 6),
    "block/conv2/bias": (6,),
    "side/kernel": (1, 1, 6, 4),
    "side/bias": (4,),
    "depthwise/kernel": (3, 3, 1, 10),
    "depthwise/bias": (10,),
    "plain/kernel": (2, 2, 10, 7),
    "plain/bias": (7,),
    "hidden/kernel": (3 * 3 * 7, 9),
    "hidden/bias": (9,),
    "classifier/kernel": (9, 4),
    "classifier/bias": (4,),
}


def conv(layer, x, padding="SAME", **options):
    return jax.lax.conv_general_dilated(
        x,
        layer["kernel"],
        (1, 1),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        **options,
    ) + layer.get("bias", 0)


def norm(layer, x):
    return (x - layer["mean"]) * jax.lax.rsqrt(layer["var"] + 1e-5) * layer["scale"] + layer["bias"]


def network(params, images):
    """A residual sum, a concatenation, a depthwise convolution, pooling, flattening."""
    block = params["block"]
    x = jax.nn.relu(conv(params["stem"], images))
    x = jax.nn.relu(
        x + conv(block["conv2"], jax.nn.silu(norm(block["norm"], conv(block["conv1"], x))))
    )
    x = jnp.concatenate([x, jax.checkpoint(conv)(params["side"], x)], -1)
    x = jax.nn.leaky_relu(conv(params["depthwise"], x, feature_group_count=x.shape[-1]))
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = jnp.tanh(conv(params["plain"], x, "VALID"))
    x = x.transpose(0, 3, 1, 2).reshape(len(images), -1)
    x = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return x @ params["classifier"]["kernel"] + params["classifier"]["bias"]


def arrays(seed, dtype=np.float32):
    random = np.random.default_rng(seed)
    flat = {path: random.normal(size=shape).astype(dtype) for path, shape in SHAPES.items()}
    flat["block/norm/var"] = np.square(flat["block/norm/var"]) + dtype(0.1)
    return flat


@pytest.fixture(scope="module")
def links():
    return compaction.trace_links(network, nested(arrays(0)), IMAGES.astype(np.float32))


def test_links(links):
    found = {link.name: link for link in links}
    assert found["stem_tied"].kernels == ("stem/kernel", "block/conv2/kernel")
    assert found["stem_tied"].depthwise == ("depthwise/kernel",)
    assert found["stem_tied"].consumers == (
        "block/conv1/kernel",
        "side/kernel",
        "plain/kernel",
    )
    assert set(found["stem_tied"].between) == {"stem/bias", "block/conv2/bias", "depthwise/bias"}
    assert found["plain"].consumers == ("hidden/kernel",)
    assert set(found["block/conv1"].between) == {
        f"block/norm/{leaf}" for leaf in ("scale", "bias", "mean", "var")
    }
    assert {name for name, link in found.items() if link.reason} == {"classifier"}
    lines = str(links).splitlines()
    assert lines[0].split("  ")[0] == "layer"
    assert lines[1].split()[:3] == ["stem", "6", "block/conv2"]
    assert lines[-1].endswith("an output of the network")


def test_any_masks_leave_the_logits_of_the_masked_network(links):
    """Random masks, some of them the same in tied layers, with and without norms and biases."""
    removed, kept_back = set(), set()
    with jax.enable_x64(True):
        images = jnp.asarray(IMAGES)
        exact = compaction.trace_links(network, nested(arrays(0, np.float64)), images)
        logits = jax.jit(network)
        for seed in range(8):
            flat, random = arrays(seed, np.float64), np.random.default_rng(seed)
            masks = {}
            for link in exact:
                shared = random.random(link.filters) < 0.6
                for kernel in link.kernels:
                    mask = shared if seed % 2 else random.random(link.filters) < 0.6
                    mask[0] = True
                    masks[kernel] = mask
                    flat[kernel] = flat[kernel] * mask
                    for path in link.between if seed % 3 else ():
                        if flat[path].shape == mask.shape:
                            flat[path] = flat[path] * mask
            params = nested(flat)
            smaller = compaction.cut(params, exact, masks)
            assert not smaller.inexact
            removed |= smaller.filters.keys()
            kept_back |= smaller.stays.keys()
            expected = logits(params, images)
            actual = logits(spread(smaller, params, exact), images)
            np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-11)
    assert removed == {path.removesuffix("/kernel") for path in SHAPES if "/kernel" in path} - {
        "classifier"
    }
    assert "classifier" in kept_back


def test_smaller_network_and_its_optimizer_state(links):
    """The small arrays themselves in the same function, without any module."""
    flat = arrays(3)
    masks = {
        group.name: np.arange(flat[group.scored[0]].shape[-1]) % 3 > 0 for group in links.groups()
    }
    for group in links.groups():
        for path in group.leaves:
            flat[path] = flat[path] * masks[group.name]
    params = nested(flat)
    smaller = compaction.cut(params, links, masks)
    assert smaller.filters["stem"] == smaller.filters["block/conv2"] == 4
    assert leaves(smaller.params)["hidden/kernel"].shape == (3 * 3 * 4, 6)
    assert not smaller.stays
    images = IMAGES.astype(np.float32)
    expected = network(params, images)
    np.testing.assert_allclose(network(smaller.params, images), expected, rtol=1e-5, atol=1e-5)

    prune = pruning.sfp(links.groups, 0.4, epochs=2, every=1)
    state = (prune.init(params), {"mu": params}, jnp.zeros((2, *SHAPES["plain/bias"])))
    pruned, moments, other = compaction.cut_like(state, smaller)
    shapes = jax.tree.map(jnp.shape, smaller.params)
    assert jax.tree.map(jnp.shape, moments["mu"]) == shapes
    assert {name: len(mask) for name, mask in pruned.masks.items()} == {
        name: int(mask.sum()) for name, mask in masks.items()
    }
    assert other.shape == (2, 7)
    by_links = compaction.trace_links(network, smaller.params, images)
    assert prune.update(smaller.params, pruned, smaller.params)
    assert [link.filters for link in by_links] == [4, 3, 2, 4, 6, 4]


def counted(links, params, rate=0.5):
    """What `pruning.table` says of the filters of 'plain': how many there are, how many go."""
    table = pruning.table(params, links.groups(), rate).splitlines()
    (row,) = (line.split() for line in table if line.split()[0] == "plain")
    return int(row[1]), int(row[2])


def test_pruning_goes_on_after_a_cut_as_in_the_masked_network(links):
    """Filters that two cuts removed count in the rates of `links.after(cut.removed)`."""
    flat, images = arrays(4), IMAGES.astype(np.float32)
    for path in ("plain/kernel", "plain/bias"):
        flat[path][..., :2] = 0
    smaller = compaction.cut(nested(flat), links, {"plain": np.arange(7) > 1})
    assert smaller.removed == {link.name: 2 * (link.name == "plain") for link in links}
    traced = compaction.trace_links(network, smaller.params, images)
    later = traced.after(smaller.removed)
    assert counted(links, nested(flat)) == (7, 3)
    assert counted(later, smaller.params) == (5, 1)
    assert counted(traced, smaller.params) == (5, 2)
    assert {group.name: group.removed for group in later.groups()} == {
        name: removed for name, removed in smaller.removed.items() if name != "classifier"
    }
    flat = leaves(smaller.params)
    flat["plain/kernel"] = flat["plain/kernel"] * (np.arange(5) > 0)
    flat["plain/bias"] = flat["plain/bias"] * (np.arange(5) > 0)
    again = compaction.cut(nested(flat), later, {"plain": np.arange(5) > 0})
    assert again.removed["plain"] == 3
    with pytest.raises(UserError, match="of another network: there is no link 'stern'"):
        traced.after({"stern": 1})


def test_constants_that_cannot_move_stay_or_are_reported(links):
    flat = arrays(0)
    masks = {"stem_tied": np.arange(6) != 2, "block/conv1": np.arange(5) != 1}
    for kernel in ("stem", "block/conv2", "block/conv1"):
        mask = masks["block/conv1" if kernel == "block/conv1" else "stem_tied"]
        flat[f"{kernel}/kernel"] = flat[f"{kernel}/kernel"] * mask
    params = nested(flat)
    smaller = compaction.cut(params, links, masks)
    assert smaller.filters == {}
    assert "no constant" in smaller.stays["stem"] or "at the borders" in smaller.stays["stem"]
    assert "at the borders that block/conv2 pads" in smaller.stays["block/conv1"]
    dropped = compaction.cut(params, links, masks, exact=False)
    assert dropped.filters["block/conv1"] == 4
    assert "at the borders that block/conv2 pads with zeros" in dropped.inexact["block/conv2"]


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"stem": np.ones(5, bool)}, r"'stem' \(5,\) is of another network: 6 filters there"),
        ({"stern": np.ones(6, bool)}, "'stern' .* no such layer"),
        ({"plain": np.arange(7) > 0}, "filter 0 of 'plain' is pruned by its mask but not zero"),
        (None, "no filter of 'hidden' is left"),
    ],
)
def test_refusals(links, masks, message):
    flat = arrays(0)
    if masks is None:
        flat["hidden/kernel"] = np.zeros_like(flat["hidden/kernel"])
    with pytest.raises(UserError, match=message):
        compaction.cut(nested(flat), links, masks)


def test_params_of_another_network_are_refused(links):
    with pytest.raises(UserError, match="trace or declare the links again"):
        compaction.cut(nested(arrays(0) | {"more": np.zeros(3)}), links)
    with pytest.raises(UserError, match="'f' is no array"):
        compaction.trace_links(lambda params, x: x, {"f": jax.nn.relu}, IMAGES)
    with pytest.raises(UserError, match="two trees of params have an array 'w'"):
        compaction.trace_links(lambda a, b, x: x, ({"w": IMAGES}, {"w": IMAGES}), IMAGES)
