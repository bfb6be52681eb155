"""Filters on the first axis, as PyTorch and Equinox keep them, and what is no kernel."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import pruning
from kdjax.pruning import FilterGroup
from kdjax.pruning.groups import sizes
from tests.pruning.trees import EVERY, sgd, train

SHAPES = ((16, 3, 3, 3), (16, 16, 3, 3), (32, 16, 1, 1))


def kernels(key: int, shapes=SHAPES) -> list[np.ndarray]:
    random = np.random.default_rng(key)
    return [random.normal(size=shape).astype(np.float32) for shape in shapes]


def equinox_like(arrays) -> dict:
    layers = [
        {"weight": x, "bias": np.ones((len(x), *[1] * (x.ndim - 2)), np.float32)} for x in arrays
    ]
    return {"layers": layers}


def flax_like(arrays) -> dict:
    return {f"conv{i}": {"kernel": x.transpose(2, 3, 1, 0)} for i, x in enumerate(arrays)}


@pytest.mark.parametrize("method", ["sfp", "ghfp", "fpgm", "asrfp"])
def test_first_axis_prunes_what_the_last_one_does(method):
    """The same numbers in both layouts end as the same numbers."""
    first, last = equinox_like(kernels(0)), flax_like(kernels(0))
    make = functools.partial(getattr(pruning, method), pruning.official, 0.4, epochs=2, every=1)

    def end(tx, params):
        state = tx.init(params)
        for _ in range(2):
            updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    (first, state), (last, _) = end(make(filter_axis=0), first), end(make(), last)
    for i in range(len(SHAPES)):
        weight = np.asarray(first["layers"][i]["weight"])
        np.testing.assert_array_equal(weight.transpose(2, 3, 1, 0), last[f"conv{i}"]["kernel"])
        gone = ~weight.any((1, 2, 3))
        assert gone.sum() == int(0.4 * len(weight))
        np.testing.assert_array_equal(state.masks[f"layers/{i}/weight"], ~gone)


def test_first_axis_of_groups_with_settled_leaves_and_consumers():
    params = equinox_like(kernels(1, SHAPES[:2]))
    group = FilterGroup(
        "first",
        ("layers/0/weight",),
        (),
        settled=("layers/0/bias",),
        consumers=("layers/1/weight",),
        filter_axis=0,
    )
    tx = pruning.hfp(lambda _: [group], 0.5, epochs=2, every=EVERY)
    moment = train(sgd(tx), params, EVERY)[-1]
    first, second = moment.params["layers"]
    gone = ~first["weight"].any((1, 2, 3))
    assert gone.sum() == 8
    assert not first["bias"][gone].any()
    assert first["bias"][~gone].all()
    assert not second["weight"][:, gone].any()
    assert second["weight"][:, ~gone].any((1, 2, 3)).all()


def test_dense_layers_and_tables_of_the_first_axis():
    params = {"hidden": {"weight": np.ones((10, 4))}, "out": {"weight": np.ones((3, 10))}}
    groups = pruning.by_pattern(params, ["hidden/weight"], filter_axis=0)
    assert sizes(params, groups) == {"hidden/weight": 10}
    assert pruning.table(params, groups, 0.4).splitlines()[1].split()[1:3] == ["10", "4"]


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        ((16, 3, 3, 3), "kernel"),
        ((64, 64, 3, 3), "kernel"),
        ((128, 64, 1, 1), "w"),
        ((64, 64, 1, 7), "kernel"),
        ((3, 3, 3, 16), "weight"),
    ],
)
def test_filters_that_seem_to_be_first_are_refused(shape, name):
    params = {"conv": {name: jnp.ones(shape)}}
    tx = pruning.filter_pruning(pruning.official, rate=0.4, every=1)
    with pytest.raises(ValueError, match=r"on the first axis, .*filter_axis=0"):
        tx.init(params)
    for axis in (-1, 0) if shape[-1] > 1 else (0,):
        explicit = pruning.filter_pruning(pruning.official, rate=0.5, every=1, filter_axis=axis)
        (mask,) = explicit.init(params).masks.values()
        assert mask.shape == (shape[axis],)
    # Single weights are pruned wherever filters are.
    pruning.weight_pruning(pruning.official, rate=0.4, every=1).init(params)


@pytest.mark.parametrize("shape", [(3, 3, 1, 8), (3, 3, 2, 2), (1, 7, 64, 64), (7, 7, 3, 16)])
def test_flax_kernels_are_not_refused(shape):
    params = {"conv": {"kernel": jnp.ones(shape)}}
    pruning.filter_pruning(pruning.official, rate=0.5, every=1).init(params)


def test_contradicting_axes():
    params = equinox_like(kernels(2))
    select = functools.partial(pruning.official, filter_axis=0)
    assert pruning.sfp(select, 0.4, epochs=1, every=1).init(params).masks
    with pytest.raises(ValueError, match="set one of them"):
        pruning.sfp(select, 0.4, epochs=1, every=1, filter_axis=0).init(params)
    with pytest.raises(ValueError, match="filter_axis=1 is unknown"):
        pruning.sfp(pruning.official, 0.4, epochs=1, every=1, filter_axis=1).init(params)


def test_norms_of_four_axes_are_no_filters():
    params = {
        "conv": {"kernel": jnp.ones((3, 3, 3, 8))},
        "norm": {"scale": jnp.ones((1, 1, 1, 8)), "offset": jnp.ones((1, 1, 1, 8))},
        "layer_scale": jnp.ones((1, 1, 8)),
    }
    assert [group.name for group in pruning.official(params)] == ["conv"]
    assert [group.name for group in pruning.by_pattern(params, ["**"])] == ["conv"]
    with pytest.raises(ValueError, match="matches no kernel"):
        pruning.by_pattern(params, ["norm/*"])
