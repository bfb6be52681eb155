"""What counts as finite at the end of an epoch."""

import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.training.finite import not_finite
from kdjax.training.step import TrainState


def state(**values):
    """Ones, but for what `values` says."""
    trees = {"params": 1.0, "model_state": 1.0, "opt_state": 1.0} | values
    return TrainState(
        jnp.int32(3), **{k: {"a": jnp.ones(2), "b": jnp.array([1, v])} for k, v in trees.items()}
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(value):
    assert not_finite(state()) == []
    assert not_finite(state(params=value)) == ["square of params/b"]
    assert not_finite(state(model_state=value)) == ["model_state/b"]
    assert not_finite(state(opt_state=value)) == ["opt_state/b"]


def test_squares_of_parameters_are_finite():
    assert not_finite(state(params=1e19, model_state=1e30, opt_state=-1e30)) == []
    assert not_finite(state(params=-2e19)) == ["square of params/b"]


def test_state_without_floats():
    assert not_finite(TrainState(jnp.int32(3), {}, {}, ())) == []
