"""Shrinking while training, and BatchNorm's statistics after removal."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import models
from kdjax.compaction import (
    filter_groups,
    narrow,
    recalibrate_batch_norm,
    remove_filters,
    shrink,
    with_removed,
)
from kdjax.errors import UserError
from kdjax.pruning import ghfp, hfp, initial, official, pruning_state
from tests.compaction.removed import assert_close, images, logits, pruned
from tests.models.families import FAMILIES, random_variables

RATE, EVERY = 0.4, 2


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def optimizer(network, method=hfp, residual=True):
    def select(params):
        del params
        return filter_groups(network, norms=True, residual=residual)

    pruning = method(select, RATE, epochs=4, every=EVERY)
    decayed = optax.add_decayed_weights(1e-2)
    return pruning, optax.chain(decayed, optax.sgd(0.1, momentum=0.9, nesterov=True), pruning)


def training(network, **options):
    """`(variables, opt_state, steps) -> variables, opt_state`, each step on a batch of its own."""
    _, tx = optimizer(network, **options)

    def loss(params, batch_stats, x):
        outputs, updated = network.apply(
            {"params": params, "batch_stats": batch_stats}, x, train=True, mutable=["batch_stats"]
        )
        return -jax.nn.log_softmax(outputs.logits)[:, 1].mean(), updated["batch_stats"]

    def step(variables, opt_state, x):
        gradient = jax.grad(loss, has_aux=True)
        gradients, statistics = gradient(variables["params"], variables["batch_stats"], x)
        updates, opt_state = tx.update(gradients, opt_state, variables["params"])
        params = optax.apply_updates(variables["params"], updates)
        return {"params": params, "batch_stats": statistics}, opt_state

    step = jax.jit(step)

    def run(variables, opt_state, steps: range):
        for number in steps:
            variables, opt_state = step(variables, opt_state, images(8, 8, seed=number))
        return variables, opt_state

    return run


def test_a_run_goes_on_as_that_of_the_masked_network():
    """Momentum and weight decay, filters that are hard, and one more pruning after shrinking."""
    network = FAMILIES["resnet"].clone(dtype=jnp.float64, blocks=(1, 1))
    variables = random_variables(network)
    pruning, tx = optimizer(network)
    variables["params"] = initial(pruning, variables["params"])
    train = training(network)
    middle = train(variables, tx.init(variables["params"]), range(3))
    masked, masked_state = train(*middle, range(3, 6))

    gone = {name: ~np.asarray(hard) for name, hard in pruning_state(middle[1]).hard.items()}
    small = shrink(network, middle[0], gone)
    assert models.parameter_count(small.variables) < 0.5 * models.parameter_count(variables)
    narrow_state = narrow(middle[1], small.cuts)
    assert all(mask.all() for mask in pruning_state(narrow_state).masks.values())
    own, own_state = training(small.network)(small.variables, narrow_state, range(3, 6))

    assert_close(own, narrow(masked, small.cuts))
    assert_close(own_state[1], narrow(masked_state[1], small.cuts))


@pytest.mark.parametrize(
    "residual", [pytest.param(True, marks=pytest.mark.slow), False], ids=["residual", "norms"]
)
def test_filters_chosen_after_shrinking_are_those_of_the_masked_network(residual):
    """What reads a removed filter does not count where it is still there."""
    network = FAMILIES["resnet"].clone(dtype=jnp.float64, blocks=(1, 1))
    variables = random_variables(network)
    # The first filters go first, and most of what reads them is more than of what reads others.
    for name, block in variables["params"].items():
        if "block" in name:
            block["conv1"]["kernel"][..., 0] *= 1e-3
            block["conv2"]["kernel"][:, :, 0] *= 30
    options = {"method": functools.partial(ghfp, base="srfp"), "residual": residual}
    pruning, tx = optimizer(network, **options)
    variables["params"] = initial(pruning, variables["params"])
    train = training(network, **options)
    middle = train(variables, tx.init(variables["params"]), range(2))
    masked, masked_state = train(*middle, range(2, 8))

    hard = pruning_state(middle[1]).hard
    small = shrink(network, middle[0], {name: ~np.asarray(mask) for name, mask in hard.items()})
    narrow_state = narrow(middle[1], small.cuts)
    own, own_state = training(small.network, **options)(small.variables, narrow_state, range(2, 8))

    chosen = pruning_state(own_state).masks
    before, after = (
        sum(int(mask.sum()) for mask in pruning_state(state).hard.values())
        for state in (narrow_state, own_state)
    )
    assert before == 0 < after
    jax.tree.map(
        np.testing.assert_array_equal, chosen, pruning_state(narrow(masked_state, small.cuts)).masks
    )
    assert_close(own, narrow(masked, small.cuts))


def test_soft_filters_do_not_go():
    network = FAMILIES["resnet, padding"]
    variables = random_variables(network)
    groups = filter_groups(network, norms=True)
    variables["params"], masks = pruned(variables["params"], groups)
    hard = {name: ~(np.cumsum(~mask) == 1) | mask for name, mask in masks.items()}
    result = shrink(network, variables, hard)
    assert all((~mask).sum() == 1 for mask in result.network.compaction.masks.values())
    left = narrow(masks, result.cuts)
    for name, mask in masks.items():
        assert (~left[name]).sum() == (~mask).sum() - 1
    params = result.variables["params"]
    for group in with_removed(official(params, norms=("conv", "bn")), result.network):
        assert group.removed == 1


def test_constants_stop_shrinking():
    network = FAMILIES["resnet, padding"]
    variables = random_variables(network)
    variables["params"], masks = pruned(variables["params"], filter_groups(network))
    with pytest.raises(UserError, match="shrink in training where BatchNorm's scale") as error:
        shrink(network, variables, masks)
    assert "\n" not in str(error.value)


def test_removal_with_batch_norm_and_recalibration():
    network = FAMILIES["vgg"].clone(dtype=jnp.float64)
    variables = random_variables(network)
    variables["params"], masks = pruned(variables["params"], filter_groups(network))
    result = remove_filters(network, variables, masks, drop_norms=True)
    assert not result.network.compaction.constants
    with_constants = remove_filters(network, variables, masks)
    counts = [models.parameter_count(x.variables["params"]) for x in (result, with_constants)]
    assert counts[0] < counts[1]
    x, y = images(), images(seed=6)
    assert np.abs(logits(result.network, result.variables, x) - logits(network, variables, x)).max()

    first = recalibrate_batch_norm(result.network, result.variables, [x])
    assert first["params"] is result.variables["params"]
    # They are the batch's own: one more step of training does not move them.
    _, updated = jax.jit(
        lambda v: result.network.apply(v, x, train=True, mutable=["batch_stats"]),
    )(first)
    assert_close(updated["batch_stats"], first["batch_stats"])
    second = recalibrate_batch_norm(result.network, result.variables, [y])
    both = recalibrate_batch_norm(result.network, result.variables, iter([x, y]))
    mean = jax.tree.map(lambda a, b: (a + b) / 2, first["batch_stats"], second["batch_stats"])
    assert_close(both["batch_stats"], mean)


def test_recalibration_needs_images():
    network = FAMILIES["vgg"]
    with pytest.raises(UserError, match="without any batch"):
        recalibrate_batch_norm(network, random_variables(network), [])
