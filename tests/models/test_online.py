"""ONE, OKDDip and CL-ILR: what they add to a cohort."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models
from kdjax.errors import UserError
from kdjax.interop import torch as interop
from tests.models.helpers import IMAGES, assert_equal, random_variables, tiny

KINDS = {
    "one": models.GatedCohort,
    "okddip": models.PeerAttentionCohort,
    "cl_ilr": models.TreeCohort,
}


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def logits_of(outputs) -> np.ndarray:
    """`[B, N, C]`."""
    return np.stack([each.logits for each in outputs], axis=1)


@pytest.mark.parametrize("kind", ["one", "okddip"])
def test_networks_are_those_of_a_cohort(kind):
    module = KINDS[kind]((tiny(),) * 3)
    variables = random_variables(module)
    plain = models.Cohort((tiny(),) * 3, shared_stages=2)
    own = {
        name: {k: v for k, v in collection.items() if k == "trunk" or k.startswith("network")}
        for name, collection in variables.items()
    }
    outputs = jax.jit(module.apply)(variables, IMAGES)
    assert_equal(outputs.networks, jax.jit(plain.apply)(own, IMAGES))


def test_gate_weighs_by_the_shared_map():
    module = models.GatedCohort((tiny(),) * 3)
    variables = random_variables(module)
    outputs = jax.jit(module.apply)(variables, IMAGES)
    params, statistics = (variables[name] for name in ("params", "batch_stats"))
    x = outputs.networks[0].features["stage2"].mean((1, 2))
    x = x @ params["gate_dense"]["kernel"] + params["gate_dense"]["bias"]
    norm, statistics = params["gate_bn"], statistics["gate_bn"]
    x = (x - statistics["mean"]) / np.sqrt(statistics["var"] + 1e-5) * norm["scale"] + norm["bias"]
    gate = softmax(np.maximum(np.asarray(x), 0))
    assert gate.std() > 0.01
    expected = (gate[..., None] * logits_of(outputs.networks)).sum(1)
    np.testing.assert_allclose(outputs.ensemble, expected, rtol=1e-4, atol=1e-5)


def test_gate_statistics_are_shared_by_devices():
    images = np.random.default_rng(1).normal(size=(8, 8, 8, 3)).astype(np.float32)
    one, many = (models.GatedCohort((tiny(axis_name=name),) * 2) for name in (None, "batch"))
    variables = random_variables(one)

    def run(module, images):
        return module.apply(variables, images, train=True, mutable=["batch_stats"])

    @jax.jit
    def both(images):
        split = images.reshape(2, 4, *images.shape[1:])
        return run(one, images), jax.vmap(lambda x: run(many, x), axis_name="batch")(split)

    (outputs, updates), (split_outputs, split_updates) = both(images)
    assert_equal(split_outputs.ensemble.reshape(outputs.ensemble.shape), outputs.ensemble)
    assert_equal(jax.tree.map(lambda leaf: leaf[0], split_updates), updates)


def test_peers_attend_to_peers():
    module = models.PeerAttentionCohort((tiny(widths=(4, 8, 16)),) * 4)
    variables = random_variables(module)
    outputs = jax.jit(module.apply)(variables, IMAGES)
    *peers, _ = outputs.networks
    kernels = (variables["params"][name]["kernel"] for name in ("query", "key"))
    embeddings = np.stack([peer.embedding for peer in peers], axis=1)
    queries, keys = (embeddings @ kernel for kernel in kernels)
    assert queries.shape == (4, 3, 16 // 8)
    attention = softmax(queries @ keys.swapaxes(1, 2))
    np.testing.assert_allclose(outputs.targets, attention @ logits_of(peers), rtol=1e-4, atol=1e-5)


def test_tree_equals_its_networks():
    module = models.TreeCohort((tiny(),) * 3)
    variables = random_variables(module)
    assert set(variables["params"]) == {
        "trunk", "pair_0", "pair_1", "network_0", "network_1", "network_2"
    }  # fmt: skip
    outputs = jax.jit(module.apply)(variables, IMAGES)
    alone = jax.jit(tiny().apply)
    for index, result in enumerate(outputs):
        assert_equal(alone(_path(variables, index), IMAGES), result)


def _path(variables: dict, index: int) -> dict:
    """The variables of one network of a tree, as it has them alone."""
    parts = ("trunk", f"pair_{index // 2}", f"network_{index}")
    return {
        name: functools.reduce(lambda a, b: a | b, (collection[part] for part in parts))
        for name, collection in variables.items()
    }


@pytest.mark.slow
def test_tree_divides_gradients_where_it_splits():
    module = models.TreeCohort((tiny(),) * 3)
    variables = random_variables(module)

    def total(outputs):
        return sum((each.logits**2).sum() for each in outputs)

    @jax.jit
    @jax.grad
    def tree(params):
        return total(module.apply(variables | {"params": params}, IMAGES))

    @jax.jit
    @jax.grad
    def alone(params, variables):
        return total([tiny().apply(variables | {"params": params}, IMAGES)])

    gradients = tree(variables["params"])
    paths = [_path(variables, index) for index in range(3)]
    first, second, third = (alone(path["params"], path) for path in paths)

    trunk = jax.tree.map(lambda a, b, c: (a / 2 + b / 2 + c) / 2, first, second, third)
    pair = jax.tree.map(lambda a, b: (a + b) / 2, first, second)
    expected = {"trunk": trunk, "pair_0": pair, "pair_1": third, "network_0": first}
    for name, gradient in expected.items():
        assert_equal(gradients[name], {layer: gradient[layer] for layer in gradients[name]})


def test_tree_splits_where_it_is_told():
    network = tiny(blocks=(1, 1, 1, 1), widths=(4, 4, 8, 8))
    module = models.TreeCohort((network,) * 3, shared_stages=2)
    variables = random_variables(module)
    stages = {
        owner: {layer.split("_")[0] for layer in parts if layer.startswith("stage")}
        for owner, parts in variables["params"].items()
    }
    assert stages["trunk"] == {"stage1", "stage2"}
    assert stages["pair_1"] == {"stage3"}
    assert stages["network_2"] == {"stage4"}
    *_, last = jax.jit(module.apply)(variables, IMAGES)
    assert_equal(jax.jit(network.apply)(_path(variables, 2), IMAGES), last)


@pytest.mark.slow
def test_trunk_divisor():
    def gradient(divisor):
        module = models.TreeCohort((tiny(),) * 2, trunk_divisor=divisor)
        variables = random_variables(module)

        @jax.jit
        @jax.grad
        def gradient(params):
            outputs = module.apply(variables | {"params": params}, IMAGES)
            return sum(each.logits.sum() for each in outputs)

        return gradient(variables["params"])

    own, official = gradient(None), gradient(2)
    trunk = official.pop("trunk")
    assert_equal(jax.tree.map(lambda leaf: 2 * leaf, trunk), own.pop("trunk"))
    assert_equal(official, own)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_added_is_float32(kind):
    module = KINDS[kind]((tiny(dtype=jnp.bfloat16),) * 3)
    outputs = jax.eval_shape(
        lambda: module.init_with_output(jax.random.key(0), IMAGES, train=True)[0]
    )
    narrow = {jnp.dtype(leaf.dtype) for leaf in jax.tree.leaves(outputs) if leaf.ndim == 4}
    assert narrow == {jnp.dtype(jnp.bfloat16)}
    if kind == "one":
        assert outputs.ensemble.dtype == jnp.float32
    if kind == "okddip":
        assert outputs.targets.shape == (4, 2, 5)
        assert outputs.targets.dtype == jnp.float32


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (models.GatedCohort((tiny(),) * 2, shared_stages=0), "set shared_stages"),
        (models.GatedCohort((tiny(), tiny("wrn"))), "one architecture"),
        (models.PeerAttentionCohort((tiny(),)), "at least one peer"),
        (
            models.PeerAttentionCohort((tiny(), tiny("wrn"), tiny()), shared_stages=0),
            "equally long",
        ),
        (models.TreeCohort((tiny(), tiny("wrn"))), "one architecture"),
    ],
)
def test_cohorts_that_cannot_be(module, message):
    with pytest.raises(UserError, match=message) as error:
        jax.eval_shape(module.init, jax.random.key(0), IMAGES)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_names_round_trip(kind):
    module = KINDS[kind]((tiny(),) * 3)
    variables = random_variables(module)
    state = interop.export_state_dict(module, variables)
    assert {"conv1.weight", "layer3_2.0.bn1.running_var", "classifier_2.bias"} <= set(state)
    back, report = interop.import_state_dict(module, state)
    jax.tree.map(np.testing.assert_array_equal, back, variables)
    assert not report.unread


def test_transitions_that_the_official_tree_never_uses():
    module = models.TreeCohort((models.DenseNet(num_classes=5, blocks=(1, 1, 1), growth=4),) * 4)
    variables = random_variables(module)
    state = interop.export_state_dict(module, variables)
    names = {name for name in state if name.startswith(("layer2_tran2.", "layer2_tran3."))}
    assert len(names) == 2 * (1 + 4 + 1)
    for name in names:
        used = f"layer2_tran0.{name.partition('.')[2]}"
        assert (state[name].shape, state[name].dtype) == (state[used].shape, state[used].dtype)
        state[name] = state[name] + 1
    back, report = interop.import_state_dict(module, state)
    jax.tree.map(np.testing.assert_array_equal, back, variables)
    assert set(report.unread) == names
    assert "never used" in str(report)
    again = interop.export_state_dict(module, back, unread=report.unread)
    assert set(again) == set(state)
    for name in names:
        np.testing.assert_array_equal(again[name], state[name])
    # What is never used need not be there.
    interop.import_state_dict(module, {n: v for n, v in state.items() if n not in names})
