"""CRD: two steps of the official code, and properties."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses
from tests import golden

RANDOM = np.random.default_rng(0)
IMAGES, BATCH, FEATURES, CONTRAST = 12, 4, 5, 6


def unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("name", golden.loss_names("repd_crd_"))
def test_two_steps(name, dtype):
    hyper, arrays = golden.loss(name)
    compare = functools.partial(golden.compare, dtype=dtype)
    embed = [f"embed_{who}.linear.{leaf}" for who in "st" for leaf in ("weight", "bias")]
    params = {name: arrays[f"in_{name}"].astype(dtype) for name in embed}
    banks = [arrays[f"in_memory_{who}"].astype(dtype) for who in "st"]
    memory = losses.CrdMemory(*banks, jnp.zeros(2, dtype))

    @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def step(params, features, index, contrast, memory):
        embeddings = (
            unit(x @ params[f"embed_{who}.linear.weight"].T + params[f"embed_{who}.linear.bias"])
            for who, x in zip("st", features, strict=True)
        )
        values, memory = losses.crd(
            *embeddings,
            index,
            contrast,
            memory,
            temperature=hyper["nce_t"],
            momentum=hyper["nce_m"],
        )
        return values.mean(), memory

    for number in (1, 2):
        features = [arrays[f"in_f_{who}_{number}"].astype(dtype) for who in "st"]
        index, contrast = arrays[f"in_index_{number}"], arrays[f"in_contrast_idx_{number}"]
        (value, memory), gradients = step(params, features, index, contrast, memory)
        assert value.dtype == dtype
        compare(value, arrays[f"out_loss_{number}"][0])
        for key, gradient in gradients[0].items():
            compare(gradient, arrays[f"grad{number}_{key}"])
        for who, bank, gradient in zip("st", memory[:2], gradients[1], strict=True):
            compare(gradient, arrays[f"grad{number}_f_{who}_{number}"])
            compare(bank, arrays[f"out_memory_{who}_{number}"])
        compare(memory.normalizers, arrays["out_Z"])


def embeddings(seed: int = 0):
    values = np.random.default_rng(seed).normal(size=(2, BATCH, FEATURES)).astype(np.float32)
    return tuple(unit(values))


MEMORY = losses.CrdMemory(
    *unit(RANDOM.normal(size=(2, IMAGES, FEATURES)).astype(np.float32)), jnp.zeros(2)
)
INDEX = np.array([7, 2, 11, 4])
CONTRASTED = np.concatenate([INDEX[:, None], RANDOM.integers(0, IMAGES, (BATCH, CONTRAST))], axis=1)
crd = functools.partial(losses.crd, temperature=0.07, momentum=0.5)


def test_only_the_batchs_rows_move_and_stay_unit_vectors():
    _, memory = crd(*embeddings(), INDEX, CONTRASTED, MEMORY)
    others = np.setdiff1d(np.arange(IMAGES), INDEX)
    for old, new, embedding in zip(MEMORY[:2], memory[:2], embeddings(), strict=True):
        np.testing.assert_array_equal(new[others], old[others])
        np.testing.assert_allclose(new[INDEX], unit(old[INDEX] + embedding), rtol=1e-5)


def test_the_constants_are_those_of_the_first_batch():
    _, first = crd(*embeddings(0), INDEX, CONTRASTED, MEMORY)
    _, second = crd(*embeddings(1), INDEX, CONTRASTED, first)
    assert (first.normalizers > 0).all()
    np.testing.assert_array_equal(second.normalizers, first.normalizers)


def test_a_value_per_image_with_jit_and_in_half_precision():
    values, _ = crd(*embeddings(), INDEX, CONTRASTED, MEMORY)
    assert values.shape == (BATCH,)
    jitted, _ = jax.jit(crd)(*embeddings(), INDEX, CONTRASTED, MEMORY)
    np.testing.assert_allclose(jitted, values, rtol=1e-5)
    rounded = [each.astype(jnp.bfloat16) for each in embeddings()]
    values, memory = crd(*rounded, INDEX, CONTRASTED, MEMORY)
    assert values.dtype == memory.student.dtype == jnp.float32
    wide, _ = crd(*(each.astype(jnp.float32) for each in rounded), INDEX, CONTRASTED, MEMORY)
    np.testing.assert_array_equal(values, wide)


def test_permuted_batch_gives_permuted_values():
    order = np.array([2, 0, 3, 1])
    values, memory = crd(*embeddings(), INDEX, CONTRASTED, MEMORY)
    permuted = [each[order] for each in (*embeddings(), INDEX, CONTRASTED)]
    again, same = crd(*permuted, MEMORY)
    np.testing.assert_allclose(again, values[order], rtol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), same, memory)


def test_embeddings_that_agree_with_the_memory_cost_less():
    values, _ = crd(*embeddings(), INDEX, CONTRASTED, MEMORY)
    agreeing, _ = crd(MEMORY.teacher[INDEX], MEMORY.student[INDEX], INDEX, CONTRASTED, MEMORY)
    assert agreeing.mean() < values.mean()


def test_zero_embeddings_have_finite_gradients():
    def total(student, teacher):
        values, memory = crd(student, teacher, INDEX, CONTRASTED, MEMORY)
        return values.sum() + sum(leaf.sum() for leaf in memory)

    zeros = jnp.zeros((BATCH, FEATURES))
    value, gradients = jax.value_and_grad(total, (0, 1))(zeros, zeros)
    assert np.isfinite(value)
    assert all(np.isfinite(each).all() for each in gradients)


def test_two_devices_have_the_loss_and_the_memory_of_the_global_batch():
    def mean(scale, student, teacher, index, contrast, axis_name=None):
        values, memory = crd(
            unit(scale * student), unit(teacher), index, contrast, MEMORY, axis_name=axis_name
        )
        return values.mean(), memory

    def on_device(scale, *batch):
        result = jax.value_and_grad(mean, has_aux=True)(scale, *batch, "batch")
        (value, memory), gradient = result
        return jax.lax.pmean((value, gradient), "batch"), memory

    scale = jnp.linspace(0.5, 2.0, FEATURES)
    batch = (*embeddings(), INDEX, CONTRASTED)
    (value, memory), gradient = jax.value_and_grad(mean, has_aux=True)(scale, *batch)
    halves = [each.reshape(2, BATCH // 2, *each.shape[1:]) for each in batch]
    mapped = jax.vmap(on_device, in_axes=(None, 0, 0, 0, 0), axis_name="batch")
    actual = mapped(scale, *halves)
    for device in range(2):
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
            jax.tree.map(lambda leaf, device=device: leaf[device], actual),
            ((value, gradient), memory),
        )
