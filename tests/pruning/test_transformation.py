"""What pruning promises, over random trees and steps."""

import fractions
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import pruning
from kdjax.pruning import criteria, schedules
from kdjax.runs.checkpoints import Checkpoints
from kdjax.tree import leaves
from tests.pruning.trees import (
    EVERY,
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
RATE = schedules.asymptotic(0.4, EPOCHS)
DECAY = schedules.exponential_decay(EPOCHS, zero_from=0.6)
HARD = schedules.cubic(1.0, EPOCHS)


def prune(**settings):
    return pruning.filter_pruning(
        pruning.official, **{"rate": 0.4, "every": EVERY, "epochs": EPOCHS, **settings}
    )


@pytest.fixture(scope="module", params=[0, pytest.param(1, marks=pytest.mark.slow)])
def whole(request):
    """A training with all three schedules on a random tree, and its moments."""
    training = Training(sgd(prune(rate=RATE, decay=DECAY, hard_fraction=HARD)))
    return training, training.run(tree(request.param, convolutions=3), EVERY * EPOCHS)


def exactly(value: float) -> fractions.Fraction:
    """The decimal number that a binary one stands for."""
    return fractions.Fraction(float(value)).limit_denominator(10**12)


def test_exact_counts_per_layer_and_epoch(whole):
    for epoch, moment in enumerate(ends(whole[1])):
        masks, hard = moment.pruning.masks, moment.pruning.hard
        for name, kernel in kernels(moment.params).items():
            size, rate = kernel.shape[-1], exactly(RATE(epoch))
            assert (~masks[name]).sum() == math.floor(size * rate)
            assert hard[name].sum() == math.floor(size * rate * exactly(HARD(epoch)))
            assert not (hard[name] & masks[name]).any()
            expected = hard[name] if DECAY(epoch) else ~masks[name]
            np.testing.assert_array_equal(zeros(kernel), expected)


def test_between_prunings_the_state_stays(whole):
    moments = whole[1]
    for number, (one, other) in enumerate(itertools.pairwise(moments), start=2):
        assert other.pruning.count == number
        if number % EVERY:
            assert_same(one.pruning[1:], other.pruning[1:])


def assert_hard_filters_stay(moments):
    before = dict.fromkeys(moments[0].pruning.hard, False)
    for moment in moments:
        for name, kernel in kernels(moment.params).items():
            hard = np.asarray(moment.pruning.hard[name])
            assert (hard >= before[name]).all()
            assert not kernel[..., hard].any()
            before[name] = hard
    assert min(hard.sum() for hard in before.values()) > 2


def test_hard_filters_never_move(whole):
    moments = whole[1]
    assert_hard_filters_stay(moments)
    # Nothing but the masks holds them: they have momentum as all others.
    momentum = leaves(moments[-1].opt_state[1])
    for name, hard in moments[-1].pruning.hard.items():
        (trace,) = [x for path, x in momentum.items() if path.endswith(f"{name}/kernel")]
        assert np.asarray(trace)[..., hard].all()


def test_hard_filters_never_move_under_adamw():
    tx = optax.chain(optax.adamw(0.01), prune(hard_fraction=HARD, decay=0.5))
    assert_hard_filters_stay(train(tx, tree(2, convolutions=1), EVERY * EPOCHS))


@pytest.mark.parametrize("stop", [EVERY + 1, 2 * EVERY])
def test_a_restored_state_goes_on_as_if_nothing_had_happened(whole, stop, tmp_path):
    training, moments = whole
    middle = jax.tree.map(np.asarray, tuple(moments[stop - 1]))
    checkpoints = Checkpoints(tmp_path, "accuracy")
    checkpoints.save(stop, middle, {"accuracy": 0.5}, {})
    checkpoints.close()
    _, (params, opt_state) = Checkpoints(tmp_path, "accuracy").restore(middle)
    rest = training.run(params, EVERY * EPOCHS - stop, start=stop, opt_state=opt_state)
    for a, b in zip(moments[stop:], rest, strict=True):
        assert_same(a, b)


def test_those_of_smallest_norm_are_pruned():
    params = tree(3, convolutions=1)
    before = optax.apply_updates(params, jax.tree.map(lambda g: -0.1 * g, gradients(params, 0)))
    (moment,) = train(optax.chain(optax.sgd(0.1), prune(every=1)), params, 1)
    for name, kernel in kernels(before).items():
        norms = np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), axis=0)
        gone = zeros(kernels(moment.params)[name])
        assert norms[gone].max() < norms[~gone].min()


@pytest.mark.parametrize(
    ("criterion", "scope"),
    [
        (criteria.l2, "global"),
        (criteria.geometric_median(), "layer"),
        (criteria.geometric_median("cosine"), "global"),
        (criteria.mixed(0.1), "layer"),
        (criteria.random(0), "layer"),
    ],
)
def test_idempotence(criterion, scope):
    tx = prune(criterion=criterion, scope=scope)
    once = jax.jit(lambda params: pruning.initial(tx, params))
    params = once(tree(0, convolutions=1 if scope == "layer" else 2))
    pruned = {name: zeros(kernel) for name, kernel in kernels(params).items()}
    assert sum(each.sum() for each in pruned.values()) > 5
    # What the state says before training is what was pruned.
    assert_same(tx.init(params).masks, {name: ~each for name, each in pruned.items()})
    assert_same(once(params), params)


def test_ties_are_broken_by_index():
    params = {"a": {"kernel": jnp.ones((3, 3, 2, 10))}, "b": {"kernel": -jnp.ones((1, 1, 4, 20))}}
    # Of all 30, 12 go: the first 10, but for one that is left of 'a', and the next.
    for scope, expected in (("layer", {"a": range(4), "b": range(8)}), ("global", None)):
        masks = prune(scope=scope).init(params).masks
        expected = expected or {"a": range(1, 10), "b": range(1, 4)}
        for name, pruned in expected.items():
            np.testing.assert_array_equal(np.flatnonzero(~masks[name]), pruned)


@functools.cache
def runs(method, **settings):
    tx = getattr(pruning, method)(pruning.official, 0.4, epochs=EPOCHS, every=EVERY, **settings)
    return train(sgd(tx), tree(4, convolutions=1), EVERY * 2 + 1)


def test_no_decay_is_soft_filter_pruning():
    decay = schedules.exponential_decay(EPOCHS, start=0)
    for a, b in zip(runs("sfp"), runs("srfp", decay=decay), strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("base", ["sfp", "asrfp"])
def test_gradual_pruning_equals_its_ends(base):
    gradual = runs("ghfp", base=base, hard_fraction=schedules.constant(0.0))
    for a, b in zip(gradual, runs(base), strict=True):
        assert_same(a, b)
    if base == "sfp":
        gradual = runs("ghfp", base=base, hard_fraction=schedules.constant(1.0))
        for a, b in zip(gradual, runs("hfp"), strict=True):
            assert_same(a, b)


def test_hard_filters_that_were_not_pruned_at_the_start_become_zero_in_the_first_update():
    params = tree(0, convolutions=1)
    tx = prune(hard_fraction=1.0)
    hard = tx.init(params).hard
    (moment,) = train(sgd(tx), params, 1)
    for name, kernel in kernels(moment.params).items():
        np.testing.assert_array_equal(zeros(kernel), hard[name])


def test_a_hard_fraction_that_falls_frees_nothing():
    tx = prune(rate=lambda t: 0.5 - 0.1 * t, hard_fraction=lambda t: [0.2, 0.8, 0.1, 0.0, 0.3][t])
    params = {"conv": {"kernel": normal(np.random.default_rng(0), (3, 3, 2, 20))}}
    moments = ends(train(sgd(tx), params, EVERY * EPOCHS))
    assert [int(m.pruning.hard["conv"].sum()) for m in moments] == [2, 6, 6, 6, 6]
    assert [int((~m.pruning.masks["conv"]).sum()) for m in moments] == [10, 8, 6, 6, 6]


def test_jit_and_no_jit():
    params = tree(4, convolutions=1)
    tx = optax.chain(optax.sgd(0.1), prune(every=1, decay=DECAY, hard_fraction=0.5))
    for a, b in zip(
        Training(tx).run(params, 2), Training(tx, jit=False).run(params, 2), strict=True
    ):
        assert_same(a.pruning, b.pruning)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), a.params, b.params)


def test_all_else_passes_as_it_is():
    params = tree(5, convolutions=1)
    tx = prune(decay=0.5, hard_fraction=0.5)
    state, names = tx.init(params), [group.name for group in pruning.official(params)]
    update = jax.jit(tx.update)
    for number in range(2 * EVERY):
        grads = gradients(params, number)
        updates, state = update(grads, state, params)
        changed = leaves(jax.tree.map(np.asarray, updates))
        for path, grad in leaves(jax.tree.map(np.asarray, grads)).items():
            name = path.removesuffix("/kernel")
            if name in names:
                stopped = np.asarray(state.hard[name])
                if (number + 1) % EVERY == 0:
                    stopped = stopped | ~np.asarray(state.masks[name])
                assert 0 < stopped.sum() < len(stopped)
                passes = ~stopped
                changes = changed[path][..., stopped] != grad[..., stopped]
                assert changes.any((0, 1, 2)).all()
            else:
                passes = np.ones(grad.shape[-1:], bool)
            np.testing.assert_array_equal(changed[path][..., passes], grad[..., passes])
        params = optax.apply_updates(params, updates)


def test_the_update_lands_on_the_scaled_point():
    params = tree(6, convolutions=1)
    tx = prune(every=1, epochs=3, decay=lambda t: [0.5, 0.25, 0.0][t], hard_fraction=0.5)
    state = tx.init(params)
    for number, decay in enumerate([0.5, 0.25, 0.0, 0.0]):
        grads = gradients(params, number)
        updates, state = jax.jit(tx.update)(grads, state, params)
        after, landed = optax.apply_updates(params, grads), optax.apply_updates(params, updates)
        for name, kernel in kernels(after).items():
            kept, hard = state.masks[name], state.hard[name]
            factor = kept + decay * ~kept * ~hard
            np.testing.assert_allclose(kernels(landed)[name], kernel * factor, atol=1e-6)
            assert (zeros(kernels(landed)[name]) == (factor == 0)).all()
        params = landed


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_half_precision(decay):
    params = tree(8, convolutions=1, dtype=jnp.bfloat16)
    (moment,) = train(prune(every=1, decay=decay, hard_fraction=0.5), params, 1)
    before = jax.tree.map(lambda x, y: x + y, params, gradients(params, 0))
    for name, kernel in kernels(before).items():
        norms = np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), axis=0)
        kept, hard = moment.pruning.masks[name], moment.pruning.hard[name]
        assert (~kept).sum() == math.floor(0.4 * kernel.shape[-1] + 1e-6)
        # Hard ones come first; XLA may leave the rounding of the sum to bfloat16 out.
        assert norms[~kept & ~hard].max() <= norms[kept].min() * 1.001
        landed = kernels(moment.params)[name]
        np.testing.assert_array_equal(landed[..., kept], kernel[..., kept])
        assert not landed[..., hard].any()
        np.testing.assert_allclose(
            landed[..., ~kept & ~hard], decay * kernel[..., ~kept & ~hard], atol=0.03
        )
        assert (zeros(landed) == (hard if decay else ~kept)).all()
    for leaf in jax.tree.leaves(moment.params):
        assert leaf.dtype == jnp.bfloat16


def test_updates_of_less_precision_than_parameters_land_on_zero():
    params = {"conv": {"kernel": normal(np.random.default_rng(0), (3, 3, 2, 20)) / 3}}
    updates = jax.tree.map(lambda x: x.astype(jnp.bfloat16), gradients(params, 0))
    tx = prune(every=1)
    updates, state = tx.update(updates, tx.init(params), params)
    landed = optax.apply_updates(params, updates)["conv"]["kernel"]
    np.testing.assert_array_equal(zeros(np.asarray(landed)), ~state.masks["conv"])
