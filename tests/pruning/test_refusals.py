"""Settings, states and calls that cannot work: one line each. And what a step costs."""

import jax
import jax.numpy as jnp
import optax
import pytest

from kdjax import pruning
from kdjax.pruning import schedules
from tests.pruning.trees import gradients, tree

PARAMS = {"conv": {"kernel": jnp.ones((3, 3, 2, 16))}}


def prune(**settings):
    return pruning.filter_pruning(pruning.official, **{"rate": 0.4, "every": 2, **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 1.0}, r"rate=1 is not in \[0, 1\)"),
        ({"rate": -0.1}, r"rate=-0.1 is not in"),
        ({"rate": float("nan")}, "rate is not finite in epoch 0"),
        ({"rate": lambda t: 0.3 * t, "epochs": 5}, r"rate=0 \.\.\. 1.2 is not in \[0, 1\)"),
        ({"rate": lambda t: 0.3}, "rate is a schedule: pass the number of epochs, epochs="),
        ({"decay": 1.5}, r"decay=1.5 is not in \[0, 1\]"),
        ({"hard_fraction": -1}, r"hard_fraction=-1 is not in"),
        ({"every": 0}, "every=0 must be positive"),
        ({"epochs": 0}, "epochs=0 must be positive"),
        ({"counting": "round"}, "counting='round' is unknown; use one of exact, float"),
        ({"scope": "block"}, "scope='block' is unknown; use one of layer, global"),
    ],
)
def test_settings(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        prune(**settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (0.0, "rate=0 prunes nothing: not one of the 16 of 'conv', the widest"),
        (0.05, "rate=0.05 prunes nothing"),
        (0.99999999, "prunes 16 of the 16 filters of 'conv', where 1 must be left"),
    ],
)
def test_rates_that_empty_a_layer_or_prune_nothing(rate, message):
    with pytest.raises(ValueError, match=message):
        prune(rate=rate).init(PARAMS)


def test_a_rate_that_prunes_only_later_is_fine():
    tx = prune(rate=schedules.cubic(0.4, 5), epochs=5)
    assert tx.init(PARAMS).masks["conv"].sum() == 16 - 3


def test_masks_of_another_network():
    tx, state = prune(), prune().init(PARAMS)
    for other, message in (
        ({"conv": {"kernel": jnp.ones((3, 3, 2, 8))}}, r"that of 'conv' is \(16,\), .* \(8,\)"),
        ({"other": PARAMS["conv"]}, "none for 'other'"),
        (PARAMS | {"second": PARAMS["conv"]}, "none for 'second'"),
    ):
        with pytest.raises(ValueError, match=f"masks of another network: {message}"):
            tx.update(other, state, other)
    both = prune().init(PARAMS | {"second": PARAMS["conv"]})
    with pytest.raises(ValueError, match="there is no 'second' in this one"):
        tx.update(PARAMS, both, PARAMS)


def test_calls_without_what_is_needed():
    tx = prune()
    with pytest.raises(ValueError, match="pruning needs the parameters"):
        tx.update(PARAMS, tx.init(PARAMS))
    with pytest.raises(ValueError, match="the updates have no 'conv/kernel'"):
        tx.update({}, tx.init(PARAMS), PARAMS)
    with pytest.raises(ValueError, match="not a chain with it"):
        pruning.initial(optax.chain(optax.sgd(0.1), tx), PARAMS)
    with pytest.raises(ValueError, match="0 pruning states, not one"):
        pruning.pruning_state(optax.sgd(0.1).init(PARAMS))
    with pytest.raises(ValueError, match="2 pruning states"):
        pruning.pruning_state(optax.chain(tx, tx).init(PARAMS))
    tx = prune(criterion=lambda kernel, name: kernel)
    with pytest.raises(ValueError, match=r"the criterion returned \(18, 16\) for 'conv', not"):
        tx.init(PARAMS)
    twice = {"a": {"b": jnp.ones((2, 3))}, "a/b": jnp.ones((2, 3))}
    with pytest.raises(ValueError, match="two arrays have the path 'a/b'"):
        pruning.by_pattern(twice, ["a/b"])


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("slim", {}, "unknown method 'slim'; use one of sfp, asfp, srfp, asrfp, hfp, ghfp, fpgm"),
        ("ghfp", {"base": "hfp"}, "base='hfp' is unknown; use one of sfp, asfp, srfp, asrfp"),
        ("srfp", {"base": "sfp"}, "base has no effect on 'srfp'"),
        ("sfp", {"decay": schedules.constant(0.5)}, "decay has no effect on 'sfp'"),
        ("ghfp", {"rising": schedules.constant(0.5)}, "rising has no effect on 'ghfp' of 'sfp'"),
        ("hfp", {"hard_fraction": schedules.constant(0.5)}, "hard_fraction has no effect on 'hfp'"),
    ],
)
def test_methods_refuse_what_they_do_not_use(method, settings, message):
    with pytest.raises(ValueError, match=message):
        pruning.method_schedules(method, 0.4, epochs=10, **settings)


def test_between_prunings_nothing_is_scored_or_sorted():
    params = tree(0)
    tx = prune(hard_fraction=0.5, decay=0.5)
    jaxpr = jax.make_jaxpr(tx.update)(gradients(params, 0), tx.init(params), params)
    outside = [equation.primitive.name for equation in jaxpr.eqns]
    assert outside.count("cond") == 1
    assert not {"sort", "reduce_sum", "sqrt", "concatenate"} & set(outside)
    largest = max(
        (v.aval.size for e in jaxpr.eqns if e.primitive.name == "cond" for v in e.outvars),
    )
    assert largest <= 40  # masks of at most 40 filters leave the branch, no kernel
