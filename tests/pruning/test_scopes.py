"""Filters that share a fate, a network-wide rate, single weights, and compacted networks."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import pruning
from kdjax.pruning import FilterGroup, criteria, schedules
from kdjax.tree import leaves
from tests.pruning.trees import (
    EVERY,
    Moment,
    Training,
    assert_same,
    ends,
    gradients,
    kernels,
    normal,
    sgd,
    train,
    tree,
    zeros,
)

EPOCHS = 5


def test_a_group_is_scored_and_masked_together():
    random = np.random.default_rng(0)
    shapes = {"a": (3, 3, 4, 10), "b": (3, 3, 1, 10), "scale": (10,), "bias": (10,)}
    params = {name: normal(random, shape) for name, shape in shapes.items()}
    group = FilterGroup("ab", ("a", "b"), ("scale",))
    tx = pruning.sfp(lambda _: [group], 0.3, epochs=1, every=1)
    landed = pruning.initial(tx, params)
    squares = sum(np.square(params[name]).sum((0, 1, 2)) for name in "ab")
    gone = np.argsort(squares)[:3]
    assert set(gone) != set(np.argsort(np.square(params["a"]).sum((0, 1, 2)))[:3])
    for name in ("a", "b", "scale"):
        pruned = ~np.asarray(landed[name]).reshape(-1, 10).any(0)
        np.testing.assert_array_equal(np.flatnonzero(pruned), np.sort(gone))
    np.testing.assert_array_equal(landed["bias"], params["bias"])


def test_batch_norm_is_pruned_with_its_filter():
    params = tree(0, convolutions=1)
    select = functools.partial(pruning.official, norms=("conv", "bn"))
    tx = pruning.ghfp(select, 0.4, epochs=EPOCHS, every=EVERY)
    moment = train(sgd(tx), params, EVERY * EPOCHS)[-1]
    found = leaves(moment.params)
    for group in select(params):
        for path in group.leaves:
            leaf = np.asarray(found[path]).reshape(-1, found[path].shape[-1])
            np.testing.assert_array_equal(leaf.any(0), moment.pruning.masks[group.name])


def test_one_rate_for_the_whole_network():
    params = tree(1)
    tx = pruning.ghfp(pruning.official, 0.4, epochs=EPOCHS, every=EVERY, scope="global")
    moments = ends(train(sgd(tx), params, EVERY * EPOCHS))
    sizes = {name: kernel.shape[-1] for name, kernel in kernels(params).items()}
    fraction = schedules.cubic(1.0, EPOCHS)
    for epoch, moment in enumerate(moments):
        pruned = {name: zeros(kernel).sum() for name, kernel in kernels(moment.params).items()}
        assert sum(pruned.values()) == math.floor(0.4 * sum(sizes.values()) + 1e-6)
        hard = sum(int(x.sum()) for x in moment.pruning.hard.values())
        assert hard == math.floor(0.4 * fraction(epoch) * sum(sizes.values()) + 1e-6)
        assert all(pruned[name] < sizes[name] for name in sizes)
    assert any(pruned[name] != math.floor(0.4 * sizes[name] + 1e-6) for name in sizes)


@pytest.mark.parametrize("criterion", [criteria.l2, criteria.mixed(0.1)])
def test_the_scale_of_a_layer_does_not_count(criterion):
    tx = pruning.filter_pruning(
        pruning.official, rate=0.4, every=1, scope="global", criterion=criterion
    )
    params = {name: {"kernel": x} for name, x in kernels(tree(1)).items()}
    init = jax.jit(tx.init)
    masks = init(params).masks
    first = next(iter(params))
    scaled = params | {first: jax.tree.map(lambda x: x * 2.0**-10, params[first])}
    assert_same(init(scaled).masks, masks)


def test_at_least_one_filter_of_every_layer_is_left():
    random = np.random.default_rng(0)
    params = {
        "even": {"kernel": jnp.ones((3, 3, 2, 12))},
        "uneven": {"kernel": normal(random, (3, 3, 2, 12)) * np.r_[1e3, np.full(11, 1e-3)]},
    }
    tx = pruning.sfp(pruning.official, 0.45, epochs=1, every=1, scope="global")
    left = {name: int(mask.sum()) for name, mask in tx.init(params).masks.items()}
    # 10 of 24: of the uneven layer all but the one that makes its mean.
    assert left == {"even": 12, "uneven": 2}
    tx = pruning.sfp(pruning.official, 0.9, epochs=1, every=1, scope="global")
    left = {name: int(mask.sum()) for name, mask in tx.init(params).masks.items()}
    assert sum(left.values()) == 3 and min(left.values()) == 1
    tx = pruning.sfp(pruning.official, 0.96, epochs=1, every=1, scope="global")
    with pytest.raises(ValueError, match="prunes 23 of the 24 filters of 'the network', where 2"):
        tx.init(params)


@pytest.mark.parametrize("scope", ["layer", pytest.param("global", marks=pytest.mark.slow)])
def test_weights(scope):
    params = tree(2, convolutions=1 if scope == "layer" else 2)
    settings = pruning.method_schedules("ghfp", 0.4, epochs=EPOCHS, base="asrfp")._asdict()
    tx = pruning.weight_pruning(
        pruning.official, **settings, epochs=EPOCHS, every=EVERY, scope=scope
    )
    moments = train(sgd(tx), pruning.initial(tx, params), EVERY * EPOCHS)
    final = {
        path: np.asarray(leaf) for path, leaf in leaves(moments[-1].params).items() if leaf.ndim > 3
    }
    assert set(moments[-1].pruning.masks) == set(final)
    number = {path: math.floor(0.4 * leaf.size + 1e-6) for path, leaf in final.items()}
    for path, leaf in final.items():
        np.testing.assert_array_equal(leaf != 0, moments[-1].pruning.masks[path])
        if scope == "layer":
            assert (leaf == 0).sum() == number[path]
    total = sum(leaf.size for leaf in final.values())
    pruned = sum((leaf == 0).sum() for leaf in final.values())
    assert pruned == (sum(number.values()) if scope == "layer" else math.floor(0.4 * total + 1e-6))
    hard = dict.fromkeys(final, False)
    for moment in moments:
        for path in final:
            frozen = np.asarray(moment.pruning.hard[path])
            assert (frozen >= hard[path]).all()
            assert not np.asarray(leaves(moment.params)[path])[frozen].any()
            hard[path] = frozen


def test_weights_of_smallest_magnitude_are_pruned():
    params = {"conv": {"kernel": normal(np.random.default_rng(0), (3, 3, 2, 5))}}
    tx = pruning.weight_pruning(pruning.official, rate=0.3, every=1)
    kernel = np.asarray(pruning.initial(tx, params)["conv"]["kernel"])
    magnitude = np.abs(params["conv"]["kernel"])
    assert (kernel == 0).sum() == 27
    assert magnitude[kernel == 0].max() < magnitude[kernel != 0].min()


@pytest.mark.parametrize(
    ("criterion", "scope"),
    [
        (criteria.l2, "layer"),
        pytest.param(criteria.geometric_median("l1"), "global", marks=pytest.mark.slow),
    ],
)
def test_a_compacted_network_goes_on_as_the_masked_one(criterion, scope):
    params = {
        name: {"kernel": normal(np.random.default_rng(seed), (3, 3, 2, size))}
        for seed, (name, size) in enumerate({"a": 20, "b": 31}.items())
    }
    epochs, cut = 8, 2 * EVERY

    def training(removed):
        groups = [FilterGroup(name, (f"{name}/kernel",), (), removed[name]) for name in removed]
        settings = {"epochs": epochs, "every": EVERY, "criterion": criterion, "scope": scope}
        return Training(sgd(pruning.ghfp(lambda _: groups, 0.6, base="asrfp", **settings)))

    def without(tree, gone):
        """A tree without the filters that are gone, in parameters, momentum and masks alike."""

        def cut_leaf(keys, leaf):
            layers = [name for name in gone if f"'{name}'" in jax.tree_util.keystr(keys)]
            return np.asarray(leaf)[..., ~gone[layers[0]]] if layers else leaf

        return jax.tree_util.tree_map_with_path(cut_leaf, tree)

    def go_on(training, moment, updates, gone):
        for number in range(cut, cut + updates):
            grads = without(gradients(params, number), gone)
            moment = Moment(*training.step(*moment, grads))
        return moment

    nothing = {name: np.zeros(x["kernel"].shape[-1], bool) for name, x in params.items()}
    masked = training(dict.fromkeys(params, 0))
    moment = masked.run(params, cut)[-1]
    gone = {name: np.asarray(hard) for name, hard in moment.pruning.hard.items()}
    removed = {name: int(hard.sum()) for name, hard in gone.items()}
    assert min(removed.values()) > 2
    updates = EVERY * epochs - cut
    expected = go_on(masked, moment, updates, nothing)
    found = go_on(training(removed), without(moment, gone), updates, gone)
    assert_same(without(expected, gone), found)
    assert min(int(hard.sum()) for hard in found.pruning.hard.values()) > 2


@pytest.mark.parametrize("fraction", [0.0, 0.5])
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_batch_norm_is_settled_when_a_filter_is(fraction, decay):
    """Zeroed with hard filters, and with all pruned ones after the last epoch; else it decays."""
    key = jax.random.key(0)
    params = {
        "conv": {"kernel": jax.random.normal(key, (3, 3, 2, 8))},
        "bn": {"scale": jnp.ones(8), "bias": jnp.full(8, 0.5)},
        "next": {"kernel": jax.random.normal(key, (1, 1, 8, 3))},
    }
    group = pruning.FilterGroup(
        "conv",
        ("conv/kernel",),
        (),
        consumers=("next/kernel",),
        settled=("bn/scale", "bn/bias"),
    )
    tx = pruning.filter_pruning(
        lambda params: [group],
        rate=0.5,
        decay=lambda epoch: decay * (epoch < 2),
        hard_fraction=fraction,
        every=1,
        epochs=3,
    )
    update, state = jax.jit(tx.update), tx.init(params)
    for epoch in range(3):
        before = params["bn"]
        updates, state = update(jax.tree.map(jnp.ones_like, params), state, params)
        params = optax.apply_updates(params, updates)
        mask, hard = state.masks["conv"], state.hard["conv"]
        assert int(hard.sum()) == int(4 * fraction)
        settled = ~mask if epoch == 2 else hard
        for leaf in params["bn"].values():
            np.testing.assert_array_equal(leaf == 0, settled)
        factor = ~settled * np.where(~mask & (decay > 0) & (epoch < 2), decay, 1.0)
        expected = {name: factor * (leaf + 1) for name, leaf in before.items()}
        chex.assert_trees_all_close(params["bn"], expected, rtol=1e-6)
        zero = hard if decay and epoch < 2 else ~mask
        np.testing.assert_array_equal((params["conv"]["kernel"] == 0).all((0, 1, 2)), zero)
        np.testing.assert_array_equal((params["next"]["kernel"] == 0).all((0, 1, 3)), hard)


def test_filters_that_may_return_start_with_their_batch_norm():
    """Where some of the pruned ones are hard from the start: they lose it in the first update."""
    random = np.random.default_rng(0)
    params = {
        "conv": {"kernel": normal(random, (3, 3, 2, 20))},
        "bn": {"scale": np.ones(20, np.float32)},
    }
    group = pruning.FilterGroup("conv", ("conv/kernel",), (), settled=("bn/scale",))
    tx = pruning.filter_pruning(lambda params: [group], rate=0.5, hard_fraction=0.5, every=5)
    landed = pruning.initial(tx, params)
    state = tx.init(landed)
    updates, state = tx.update(jax.tree.map(jnp.zeros_like, landed), state, landed)
    params = optax.apply_updates(landed, updates)
    hard = np.asarray(state.hard["conv"])
    assert int(hard.sum()) == 5 and int((~state.masks["conv"]).sum()) == 10
    np.testing.assert_array_equal(params["bn"]["scale"] == 0, hard)
