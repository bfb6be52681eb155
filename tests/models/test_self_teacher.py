"""MixSKD's self-teacher and L-MCL's aggregator of logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models
from kdjax.interop import torch as interop
from tests import golden
from tests.models.helpers import IMAGES, assert_equal, random_variables, tiny


def test_self_teacher_is_linear_in_the_maps():
    random = np.random.default_rng(0)
    first, second = random.normal(size=(2, 3, 4, 2, 2, 8)).astype(np.float32)
    module = models.SelfTeacher(num_classes=5)
    variables = module.init(jax.random.key(0), list(first))
    run = jax.jit(lambda maps: module.apply(variables, list(maps)))
    mixed = run(0.3 * first + 0.7 * second)
    np.testing.assert_allclose(mixed, 0.3 * run(first) + 0.7 * run(second), rtol=1e-5, atol=1e-6)


def test_self_taught_is_branched_and_a_teacher():
    module = models.self_taught(tiny())
    variables = random_variables(module)
    assert set(variables["params"]) == {"backbone", "branch1", "branch2", "self_teacher"}
    outputs = jax.jit(module.apply)(variables, IMAGES)
    teacher = variables["params"].pop("self_teacher")
    branched = jax.jit(models.stage_branches(tiny()).apply)(variables, IMAGES)
    assert_equal((outputs.backbone, outputs.branches), tuple(branched))
    results = [branched.branches["branch1"], branched.branches["branch2"], branched.backbone]
    maps = np.concatenate([each.features["stage3"] for each in results], axis=-1)
    x = (maps @ teacher["conv"]["kernel"][0, 0]).mean((1, 2))
    expected = x @ teacher["classifier"]["kernel"] + teacher["classifier"]["bias"]
    np.testing.assert_allclose(outputs.self_teacher, expected, rtol=1e-4, atol=1e-5)


def test_branches_of_a_frozen_network_leave_it_alone():
    module = models.self_taught(tiny())
    variables = random_variables(module)

    @jax.jit
    @jax.grad
    def gradients(params):
        outputs = module.apply(variables | {"params": params}, IMAGES, freeze_backbone=True)
        return sum(each.logits.sum() for each in outputs.branches.values())

    found = gradients(variables["params"])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(found["backbone"]))
    assert np.any(found["branch1"]["classifier"]["kernel"])


def test_bfloat16_keeps_logits_in_float32():
    module = models.self_taught(tiny(dtype=jnp.bfloat16))
    outputs, variables = jax.eval_shape(
        lambda: module.init_with_output(jax.random.key(0), IMAGES, train=True)
    )
    assert outputs.self_teacher.shape == (4, 5)
    assert outputs.self_teacher.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


def test_names_round_trip():
    module = models.self_taught(tiny())
    variables = random_variables(module)
    state = interop.export_state_dict(module, variables)
    assert state["final_aux_classifier.conv.weight"].shape == (8, 24, 1, 1)
    back, _ = interop.import_state_dict(module, state)
    jax.tree.map(np.testing.assert_array_equal, back, variables)


LAYERS = {"hidden": "0", "output": "2"}


def aggregator_params(arrays: dict, index: int, prefix: str) -> dict:
    """The arrays of one network's official aggregator, where they stand in kdjax's."""

    def of(layer):
        name = f"{prefix}_agg.proj_head_{index}.{LAYERS[layer]}"
        return {"kernel": arrays[f"{name}.weight"].T, "bias": arrays[f"{name}.bias"]}

    return {layer: of(layer) for layer in LAYERS}


@pytest.mark.parametrize("name", golden.loss_names("lmcl_aggregator_"))
def test_aggregator(name):
    hyper, arrays = golden.loss(name)
    for index in range(hyper["number_net"]):
        with jax.enable_x64(True):
            inputs = (
                aggregator_params(arrays, index, "in"),
                golden.numbered(arrays, f"in_feat{index}_"),
                golden.numbered(arrays, f"in_logits{index}_"),
            )
            module = models.StageAggregator(dtype=jnp.float64)

            def probe(params, embeddings, logits, module=module):
                result = module.apply({"params": params}, embeddings, logits)
                return (result**2).sum(), result

            run = jax.jit(jax.grad(probe, argnums=(0, 1, 2), has_aux=True))
            gradients, result = run(*inputs)
            assert result.dtype == jnp.float64
        golden.assert_close(result, arrays[f"out_agg{index}"], 1e-9)
        expected = (
            aggregator_params(arrays, index, "grad"),
            golden.numbered(arrays, f"grad_feat{index}_"),
            golden.numbered(arrays, f"grad_logits{index}_"),
        )
        jax.tree.map(lambda a, b: golden.assert_close(a, b, 1e-9), gradients, expected)


def test_aggregator_of_equal_logits():
    random = np.random.default_rng(0)
    embeddings = list(random.normal(size=(3, 4, 6)).astype(np.float32))
    logits = random.normal(size=(4, 5)).astype(np.float32)
    module = models.StageAggregator()
    result, variables = module.init_with_output(jax.random.key(0), embeddings, [logits] * 3)
    np.testing.assert_allclose(result, logits, rtol=1e-5)
    assert variables["params"]["hidden"]["kernel"].shape == (18, 6)
    assert variables["params"]["output"]["kernel"].shape == (6, 3)
