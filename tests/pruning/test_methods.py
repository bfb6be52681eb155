"""The seven methods are what their table says."""

import jax
import numpy as np
import pytest

from kdjax import pruning
from kdjax.pruning import criteria, methods, schedules
from tests.pruning.trees import EVERY, assert_same, kernels, tree

EPOCHS = 20


def tabulated(method, **settings):
    chosen = pruning.method_schedules(method, 0.4, epochs=EPOCHS, **settings)
    return {name: [s(t) for t in range(EPOCHS)] for name, s in chosen._asdict().items()}


def each(schedule):
    return [schedule(t) for t in range(EPOCHS)]


@pytest.mark.parametrize("method", pruning.METHODS)
def test_schedules(method):
    bases = {
        "sfp": (False, False),
        "asfp": (True, False),
        "srfp": (False, True),
        "asrfp": (True, True),
    }
    bases |= {"hfp": bases["sfp"], "fpgm": bases["sfp"]}
    forms = ["sfp", "asfp", "srfp", "asrfp"] if method == "ghfp" else [None]
    for base in forms:
        found = tabulated(method, **({"base": base} if base else {}))
        rises, decays = bases[base or method]
        assert found["rate"] == (
            each(schedules.asymptotic(0.4, EPOCHS)) if rises else [0.4] * EPOCHS
        )
        assert found["decay"] == (
            each(schedules.exponential_decay(EPOCHS)) if decays else [0.0] * EPOCHS
        )
        hard = {"hfp": [1.0] * EPOCHS, "ghfp": each(schedules.cubic(1.0, EPOCHS))}
        assert found["hard_fraction"] == hard.get(method, [0.0] * EPOCHS)


def test_schedules_of_ones_own():
    own = schedules.constant(0.25)
    found = tabulated("ghfp", base="asrfp", rising=own, decay=own, hard_fraction=own)
    assert found == dict.fromkeys(found, [0.25] * EPOCHS)
    assert tabulated("ghfp") == tabulated("ghfp", base="sfp")


@pytest.mark.parametrize("method", pruning.METHODS)
def test_constructors(method, monkeypatch):
    monkeypatch.setattr(methods, "filter_pruning", lambda select, **settings: settings)
    settings = {"epochs": EPOCHS, "every": 7, "counting": "float", "scope": "global"}
    made = getattr(pruning, method)(pruning.official, 0.4, **settings)
    found = {name: each(made.pop(name)) for name in ("rate", "decay", "hard_fraction")}
    assert found == tabulated(method)
    assert (made.pop("criterion", None) is not None) == (method == "fpgm")
    assert made == settings


@pytest.mark.parametrize("method", ["asfp", "srfp"])
def test_the_pruning_before_training_of_these_changes_nothing(method):
    params = tree(0, convolutions=1)
    tx = getattr(pruning, method)(pruning.official, 0.4, epochs=EPOCHS, every=1)
    assert_same(jax.tree.map(np.asarray, pruning.initial(tx, params)), params)


def test_geometric_median_soft_and_hard():
    params = tree(1, convolutions=1)
    settings = {"epochs": 3, "every": EVERY, "norm_rate": 0.1}
    soft = pruning.fpgm(pruning.official, 0.4, **settings)
    hard = pruning.hfp(pruning.official, 0.4, epochs=3, every=EVERY, criterion=criteria.mixed(0.1))
    states = [jax.tree.map(np.asarray, tx.init(params)) for tx in (soft, hard)]
    ((name, mask),) = states[0].masks.items()
    scores = np.asarray(criteria.mixed(0.1)(kernels(params)[name]))
    assert scores[~mask].max() < scores[mask].min()
    np.testing.assert_array_equal(states[1].masks[name], mask)
    np.testing.assert_array_equal(states[1].hard[name], ~mask)
    assert not states[0].hard[name].any()
    with pytest.raises(ValueError, match="distance='l3' is unknown"):
        pruning.fpgm(pruning.official, 0.4, distance="l3", **settings)
