"""MCL-OKD's contrastive loss: values, gradients and memories of the official code."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses
from kdjax.numerics import unit
from tests import golden
from tests.losses.test_golden import compare_numbered


@pytest.mark.parametrize("name", golden.loss_names("okd_contrast_loss_"))
def test_nce(name, dtype):
    hyper, arrays = golden.loss(name)

    def mean(x):
        return losses.nce(jnp.log(x[..., 0]), images=hyper["n_data"]).mean()

    value, gradient = jax.jit(jax.value_and_grad(mean))(arrays["in_x"].astype(dtype))
    golden.compare(value, arrays["out_loss"][0], dtype)
    golden.compare(gradient, arrays["grad_x"], dtype)


def embed_params(arrays: dict, prefix: str, dtype) -> list:
    """Weight and bias of every network's embedding."""
    count = len(golden.numbered(arrays, "in_rep"))
    return [
        [arrays[f"{prefix}_embed.{i}.linear.{leaf}"].astype(dtype) for leaf in ("weight", "bias")]
        for i in range(count)
    ]


@pytest.mark.parametrize("name", golden.loss_names("okd_mcl_loss_"))
def test_mutual_nce(name, dtype):
    hyper, arrays = golden.loss(name)
    memories = golden.numbered(arrays, "in_memory", dtype)

    def mean(params, representations):
        embeddings = [
            unit(x @ weight.T + bias)
            for (weight, bias), x in zip(params, representations, strict=True)
        ]
        values, updated = losses.mutual_nce(
            embeddings,
            arrays["in_index"],
            arrays["in_contrast_idx"],
            memories,
            temperature=hyper["nce_t"],
            momentum=hyper["nce_m"],
        )
        return values.mean(), updated

    inputs = embed_params(arrays, "in", dtype), golden.numbered(arrays, "in_rep", dtype)
    (value, updated), gradients = jax.jit(jax.value_and_grad(mean, (0, 1), has_aux=True))(*inputs)
    golden.compare(value, arrays["out_loss"][0], dtype)
    compare_numbered(updated, arrays, "out_memory", dtype)
    compare_numbered(gradients[1], arrays, "grad_rep", dtype)
    expected = embed_params(arrays, "grad", dtype)
    jax.tree.map(lambda a, b: golden.compare(a, b, dtype), gradients[0], expected)


def test_ramp_up_of_okddip(dtype):
    hyper, arrays = golden.loss("okd_okddip_rampup")
    epochs = np.arange(len(arrays["out_weight"]))
    weights = losses.consistency_weight(epochs, epochs=hyper["rampup"])
    golden.compare(weights, arrays["out_weight"], dtype)


def test_mutual_nce_needs_two_networks():
    units = jnp.eye(2)
    with pytest.raises(ValueError, match="two networks or more"):
        losses.mutual_nce(
            [units], jnp.arange(2), jnp.eye(2, dtype=int), [units], temperature=1.0, momentum=0.5
        )
