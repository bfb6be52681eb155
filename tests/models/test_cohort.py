"""Cohorts: several networks on the same images, apart or with a common trunk."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

from kdjax import models
from kdjax.errors import UserError
from tests.models.helpers import IMAGES, assert_equal, random_variables, tiny


def test_networks_equal_themselves_alone():
    networks = (tiny("resnet"), tiny("wrn"))
    cohort = models.Cohort(networks)
    variables = random_variables(cohort)
    assert set(variables["params"]) == {"network_0", "network_1"}
    results = jax.jit(cohort.apply)(variables, IMAGES)
    for index, (module, result) in enumerate(zip(networks, results, strict=True)):
        own = {name: collection[f"network_{index}"] for name, collection in variables.items()}
        assert_equal(jax.jit(module.apply)(own, IMAGES), result)


def test_equal_networks_start_differently():
    module = tiny(blocks=(1,), widths=(4,))
    params = models.Cohort((module, module)).init(jax.random.key(0), IMAGES)["params"]
    for layer in ("stem_conv", "classifier"):
        first, second = (params[f"network_{index}"][layer]["kernel"] for index in range(2))
        assert np.abs(first - second).max() > 0.01


@pytest.mark.parametrize("shared_stages", [1, 3])
def test_trunk_is_shared(shared_stages):
    cohort = models.Cohort((tiny(),) * 2, shared_stages=shared_stages)
    variables = random_variables(cohort)
    assert set(variables["params"]) == {"trunk", "network_0", "network_1"}
    results = jax.jit(cohort.apply)(variables, IMAGES)
    alone = jax.jit(tiny().apply)
    for index, result in enumerate(results):
        own = {
            name: collection["trunk"] | collection.get(f"network_{index}", {})
            for name, collection in variables.items()
        }
        assert_equal(alone(own, IMAGES), result)
    assert np.abs(results[0].logits - results[1].logits).max() > 0.01


def test_trunk_statistics_move_once():
    cohort = models.Cohort((tiny(),) * 2, shared_stages=1)
    variables = random_variables(cohort)
    trunk = {name: collection["trunk"] for name, collection in variables.items()}

    @functools.partial(jax.jit, static_argnums=0, static_argnames="stop")
    def train(module, variables, **kwargs):
        return module.apply(variables, IMAGES, train=True, mutable=["batch_stats"], **kwargs)[1]

    updates, alone = train(cohort, variables), train(tiny(), trunk, stop=1)
    assert_equal(updates["batch_stats"]["trunk"], alone["batch_stats"])


@pytest.mark.parametrize("other", [tiny(blocks=(1, 1, 2)), tiny("wrn"), tiny(num_classes=6)])
def test_different_networks_cannot_share(other):
    cohort = models.Cohort((tiny(), other), shared_stages=1)
    with pytest.raises(UserError, match="one architecture"):
        jax.eval_shape(cohort.init, jax.random.key(0), IMAGES)


def test_trunk_counts_once():
    module = models.create("resnet8", num_classes=10)
    alone = models.multiply_adds(module, (32, 32, 3))
    pair = models.multiply_adds(models.Cohort((module,) * 2), (32, 32, 3))
    sharing = models.multiply_adds(models.Cohort((module,) * 2, shared_stages=1), (32, 32, 3))
    stem_and_first_stage = 32 * 32 * (27 * 16 + 2 * 144 * 16)
    assert pair == 2 * alone
    assert sharing == pair - stem_and_first_stage


def test_modules_name_the_networks_in_them():
    """With their own fields, by the paths of their variables; pyramids and heads are no part."""
    network = tiny()
    branched = models.hsakd_branches(network)
    cohort = models.Cohort((network, branched, models.Pyramid(network)))
    parts = models.network_parts(cohort)
    branches = {f"network_1/branch{stage}": head for stage, head in branched.heads}
    assert {path: part.network for path, part in parts.items()} == {
        "network_0": network,
        "network_1/backbone": network,
        **branches,
        "network_2/backbone": network,
    }
    assert not any(part.shared for part in parts.values())
    assert models.network_parts(nn.Dense(2)) == {}
    tree = models.network_parts(models.TreeCohort((network,) * 3, shared_stages=1))
    assert [path for path, part in tree.items() if part.shared] == ["trunk", "pair_0", "pair_1"]
    assert list(tree)[3:] == ["network_0", "network_1", "network_2"]
    shared = models.network_parts(models.Cohort((network,) * 2, shared_stages=1))
    assert {path: part.shared for path, part in shared.items()} == {
        "trunk": True,
        "network_0": False,
        "network_1": False,
    }
