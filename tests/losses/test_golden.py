"""Losses against the papers' official code: values and gradients, in float64 and in float32."""

from __future__ import annotations

import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses
from kdjax.methods.mcl import ProjectionHead
from tests import golden

TERMS = losses.MutualContrast._fields


def compare_numbered(actual, arrays, prefix, dtype) -> None:
    for value, expected in zip(actual, golden.numbered(arrays, prefix), strict=True):
        golden.compare(value, expected, dtype)


@pytest.mark.parametrize("name", golden.loss_names("kd_distillkl_"))
def test_kd(name, dtype):
    hyper, arrays = golden.loss(name)
    inputs = arrays["in_y_s"].astype(dtype), arrays["in_y_t"].astype(dtype)

    def mean(student, teacher, stop_teacher):
        return losses.kd(student, teacher, temperature=hyper["T"], stop_teacher=stop_teacher).mean()

    # The official class sends a gradient to the teacher, its callers detach: kd() detaches unless
    # told otherwise, and both forms have the same value and the same gradient of the student.
    for stop_teacher in (False, True):
        run = jax.jit(jax.value_and_grad(mean, (0, 1)), static_argnums=2)
        value, (student, teacher) = run(*inputs, stop_teacher)
        golden.compare(value, arrays["out_loss"], dtype)
        golden.compare(student, arrays["grad_y_s"], dtype)
        expected = np.zeros_like(inputs[1]) if stop_teacher else arrays["grad_y_t"]
        golden.compare(teacher, expected, dtype)


@pytest.mark.parametrize("name", golden.loss_names("mcl_supmcl_"))
def test_mutual_contrast(name, dtype):
    hyper, arrays = golden.loss(name)

    def terms(embeddings):
        values = losses.mutual_contrast(
            embeddings,
            arrays["in_labels"],
            temperature=hyper["tau"],
            kd_temperature=hyper["kd_T"],
        )
        values = jax.tree.map(jnp.mean, values)
        return values, values

    embeddings = golden.numbered(arrays, "in_emb", dtype)
    gradients, values = jax.jit(jax.jacrev(terms, has_aux=True))(embeddings)
    for term in TERMS:
        golden.compare(getattr(values, term), arrays[f"out_{term}"], dtype)
        compare_numbered(getattr(gradients, term), arrays, f"grad_{term}_emb", dtype)


# entry of the official head -> where it stands in ProjectionHead
HEAD_PATHS = {
    "0.weight": ("hidden", "kernel"),
    "0.bias": ("hidden", "bias"),
    "2.weight": ("output", "kernel"),
    "2.bias": ("output", "bias"),
}


def head_params(arrays: dict, index: int, dtype) -> dict:
    params = {"hidden": {}, "output": {}}
    for official, (layer, leaf) in HEAD_PATHS.items():
        value = arrays[f"in_embed.embed_list.{index}.proj_head.{official}"].astype(dtype)
        params[layer][leaf] = value.T
    return params


@pytest.mark.parametrize("name", golden.loss_names("mcl_sup_mcl_loss_"))
def test_mutual_contrast_of_projection_heads(name, dtype):
    hyper, arrays = golden.loss(name)
    head = ProjectionHead(hyper["feat_dim"])
    embeddings = golden.numbered(arrays, "in_rep", dtype)
    heads = [head_params(arrays, i, dtype) for i in range(len(embeddings))]

    def total(embeddings, heads):
        projections = [
            head.apply({"params": params}, embedding)
            for params, embedding in zip(heads, embeddings, strict=True)
        ]
        terms = losses.mutual_contrast(
            projections,
            arrays["in_labels"],
            temperature=hyper["tau"],
            kd_temperature=hyper["kd_T"],
        )
        terms = jax.tree.map(jnp.mean, terms)
        weights = {"vcl": "alpha", "soft_vcl": "gamma", "icl": "beta", "soft_icl": "lam"}
        loss = sum(hyper[weight] * getattr(terms, term) for term, weight in weights.items())
        return loss, (projections, terms)

    run = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))
    (loss, (projections, terms)), gradients = run(embeddings, heads)
    golden.compare(loss, arrays["out_loss"], dtype)
    compare_numbered(projections, arrays, "out_emb", dtype)
    for term in TERMS:
        golden.compare(getattr(terms, term), arrays[f"out_{term}"], dtype)
    compare_numbered(gradients[0], arrays, "grad_rep", dtype)
    for index, gradient in enumerate(gradients[1]):
        for official, (layer, leaf) in HEAD_PATHS.items():
            expected = arrays[f"grad_embed.embed_list.{index}.proj_head.{official}"]
            golden.compare(gradient[layer][leaf].T, expected, dtype)


def classification(logits, labels):
    return sum(losses.cross_entropy(each, labels).mean() for each in logits)


@pytest.mark.parametrize("name", golden.loss_names("mcl_logit_distill_"))
def test_distillation_from_mean(name, dtype):
    hyper, arrays = golden.loss(name)
    cifar = "cifar" in name
    count = hyper["number_net"]

    def total(logits):
        distillation = losses.distill_from_mean(
            logits,
            temperature=hyper["kd_T"],
            students=None if cifar and count == 2 else [count - 1],
            stop_teacher=cifar,
        ).mean()
        cross_entropy = classification(logits, arrays["in_targets"])
        return cross_entropy + distillation, (cross_entropy, distillation)

    logits = golden.numbered(arrays, "in_logits", dtype)
    (loss, parts), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(logits)
    golden.compare(loss, arrays["out_loss"], dtype)
    golden.compare(parts[0], arrays["out_loss_cls"], dtype)
    golden.compare(parts[1], arrays["out_loss_logit_kd"], dtype)
    compare_numbered(gradients, arrays, "grad_logits", dtype)


@pytest.mark.parametrize("name", golden.loss_names("lmcl_kldiv_"))
def test_kd_of_weighted_images(name, dtype):
    """L-MCL weighs the images of a divergence; its target is not detached."""
    hyper, arrays = golden.loss(name)
    keys = ("y_s", "y_t", "weights") if hyper["weighted"] else ("y_s", "y_t")

    def mean(student, teacher, *weights):
        values = losses.kd(student, teacher, temperature=hyper["T"], stop_teacher=False)
        return (values * weights[0][:, 0] if weights else values).mean()

    inputs = [arrays[f"in_{key}"].astype(dtype) for key in keys]
    value, gradients = jax.jit(jax.value_and_grad(mean, range(len(keys))))(*inputs)
    golden.compare(value, arrays["out_loss"], dtype)
    for key, gradient in zip(keys, gradients, strict=True):
        golden.compare(gradient, arrays[f"grad_{key}"], dtype)


@pytest.mark.parametrize("name", golden.loss_names("lmcl_supmcl_pair_"))
def test_mutual_contrast_of_weighted_anchors(name, dtype):
    """L-MCL weighs the anchors of two layers' mutual contrast."""
    hyper, arrays = golden.loss(name)

    def terms(first, second, weight):
        values = losses.mutual_contrast(
            [first, second],
            arrays["in_labels"],
            temperature=hyper["tau"],
            kd_temperature=hyper["kd_T"],
        )
        values = jax.tree.map(lambda value: (value * weight[:, 0]).mean(), values)
        return values, values

    keys = ("emb_a", "emb_b", "weight")
    inputs = [arrays[f"in_{key}"].astype(dtype) for key in keys]
    gradients, values = jax.jit(jax.jacrev(terms, (0, 1, 2), has_aux=True))(*inputs)
    for term in TERMS:
        golden.compare(getattr(values, term), arrays[f"out_{term}"], dtype)
        for key, gradient in zip(keys, getattr(gradients, term), strict=True):
            golden.compare(gradient, arrays[f"grad_{term}_{key}"], dtype)


def test_every_family_is_tested():
    """A golden case that no test takes is named here."""
    index = json.loads(golden.path("losses", "index.json").read_text())
    source = "".join(file.read_text() for file in pathlib.Path(__file__).parents[1].rglob("*.py"))
    prefixes = re.findall(r'loss_names\(f?"([a-z0-9_]+)(?:\{.*?\})?_?"\)', source)
    single = re.findall(r'golden\.loss\("([a-z0-9_]+)"\)', source)
    known = (*prefixes, *single)
    untested = [case["file"] for case in index["cases"] if not case["file"].startswith(known)]
    assert untested == []
