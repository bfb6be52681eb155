"""L-MCL: one step of the official code, its memory, and the hyper-gradient of its meta step."""

from __future__ import annotations

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses, models
from kdjax.methods.mcl import ProjectionHead
from kdjax.methods.unrolled import unrolled_sgd
from tests import golden

TERMS = losses.MutualContrast._fields
LEAVES = {"weight": "kernel", "bias": "bias"}
LAYERS = {"0": "hidden", "2": "output"}


def by_stage(arrays: dict, prefix: str, count: int, dtype) -> list[list]:
    """Arrays `PREFIX{network}_{stage}` of all networks."""
    return [golden.numbered(arrays, f"{prefix}{index}_", dtype) for index in range(count)]


def heads_of(arrays: dict, prefix: str, dtype) -> list[list[dict]]:
    """The official projection heads by network and stage, as `ProjectionHead` has them."""
    found: list[list[dict]] = []
    pattern = rf"{prefix}_mcl\.embed_list\.(\d)\.(\d)\.proj_head\.(\d)\.(\w+)"
    for name, value in arrays.items():
        if match := re.fullmatch(pattern, name):
            network, stage, layer, leaf = match.groups()
            if int(network) == len(found):
                found.append([])
            if int(stage) == len(found[-1]):
                found[-1].append({"hidden": {}, "output": {}})
            found[-1][-1][LAYERS[layer]][LEAVES[leaf]] = value.T.astype(dtype)
    return found


def aggregators_of(arrays: dict, prefix: str, dtype) -> list[dict]:
    found = {}
    for name, value in arrays.items():
        if match := re.fullmatch(rf"{prefix}_agg\.proj_head_(\d)\.(\d)\.(\w+)", name):
            network, layer, leaf = match.groups()
            own = found.setdefault(network, {"hidden": {}, "output": {}})
            own[LAYERS[layer]][LEAVES[leaf]] = value.T.astype(dtype)
    return list(found.values())


def projections_of(arrays: dict, prefix: str, dtype) -> dict:
    """The official meta network, as `StageProjections` has it."""
    found = {}
    for name, value in arrays.items():
        if match := re.fullmatch(rf"{prefix}\.proj\.(\d)\.(\d)\.(\w+)", name):
            network, stage, leaf = match.groups()
            layer = found.setdefault(f"network_{network}_stage{int(stage) + 1}", {})
            layer[LEAVES[leaf]] = value.T.astype(dtype)
    return found


def in_order(weights: dict) -> jax.Array:
    """`[pairs * S * S, B]` as the official list of weights."""
    rows = [weights[pair].reshape(-1, weights[pair].shape[-1]) for pair in sorted(weights)]
    return jnp.concatenate(rows)


def by_pair(rows, networks: int, stages: int) -> dict:
    """The official list of weights, as the losses take it."""
    pairs = list(itertools.permutations(range(networks), 2))
    return dict(zip(pairs, rows.reshape(len(pairs), stages, stages, -1), strict=True))


def compare_trees(actual, expected, dtype) -> None:
    jax.tree.map(lambda a, b: golden.compare(a, b, dtype), actual, expected)


def projected(heads, features, size):
    head = ProjectionHead(size)
    return [
        [head.apply({"params": own}, x) for own, x in zip(*each, strict=True)]
        for each in zip(heads, features, strict=True)
    ]


@pytest.mark.parametrize("name", golden.loss_names("lmcl_weight_network_"))
def test_weights_of_layer_pairs(name, dtype):
    hyper, arrays = golden.loss(name)
    module = models.StageProjections(hyper["proj_dim"])

    def probe(params, features):
        weights = in_order(losses.layer_weights(module.apply({"params": params}, features)))
        return (weights * arrays["in_probe"].astype(dtype)).sum(), weights

    params = projections_of(arrays, "in_net", dtype)
    features = by_stage(arrays, "in_feat", hyper["number_net"], dtype)
    run = jax.jit(jax.grad(probe, (0, 1), has_aux=True))
    gradients, weights = run(params, features)
    golden.compare(weights, arrays["out_weights"], dtype)
    compare_trees(gradients[0], projections_of(arrays, "grad_net", dtype), dtype)
    compare_trees(gradients[1], by_stage(arrays, "grad_feat", hyper["number_net"], dtype), dtype)


@pytest.mark.parametrize("name", golden.loss_names("lmcl_step_"))
def test_official_step(name, dtype):
    hyper, arrays = golden.loss(name)
    count, labels = hyper["number_net"], arrays["in_targets"]
    meta = projections_of(arrays, "in_weightnet", dtype)

    def total(heads, aggregators, features, logits):
        projections = models.StageProjections().apply({"params": meta}, features)
        weights = jax.lax.stop_gradient(losses.layer_weights(projections))
        ensembles = [
            models.StageAggregator(dtype=dtype).apply({"params": own}, *each)
            for own, *each in zip(aggregators, features, logits, strict=True)
        ]
        classified = losses.stage_ensembles(logits, ensembles, labels, temperature=hyper["kd_T"])
        contrast = losses.layer_contrast(
            projected(heads, features, hyper["feat_dim"]),
            weights,
            labels,
            temperature=hyper["tau"],
            kd_temperature=hyper["kd_T"],
        )
        classified, contrast = jax.tree.map(jnp.mean, (classified, contrast))
        mcl = sum(
            hyper[weight] * term
            for weight, term in zip(("alpha", "gamma", "beta", "lam"), contrast, strict=True)
        )
        return sum(classified) + mcl, (weights, classified, contrast, mcl)

    inputs = (
        heads_of(arrays, "in", dtype),
        aggregators_of(arrays, "in", dtype),
        by_stage(arrays, "in_feat", count, dtype),
        by_stage(arrays, "in_logits", count, dtype),
    )
    run = jax.jit(jax.value_and_grad(total, range(4), has_aux=True))
    (loss, (weights, classified, contrast, mcl)), gradients = run(*inputs)
    golden.compare(in_order(weights), arrays["out_weights"], dtype)
    golden.compare(classified.cross_entropy, arrays["out_loss_cls"], dtype)
    golden.compare(classified.distillation, arrays["out_loss_logit_kd"], dtype)
    for term in TERMS:
        golden.compare(getattr(contrast, term), arrays[f"out_loss_{term}"], dtype)
    golden.compare(mcl, arrays["out_loss_mcl"], dtype)
    golden.compare(loss, arrays["out_loss"], dtype)
    expected = (
        heads_of(arrays, "grad", dtype),
        aggregators_of(arrays, "grad", dtype),
        by_stage(arrays, "grad_feat", count, dtype),
        by_stage(arrays, "grad_logits", count, dtype),
    )
    compare_trees(gradients, expected, dtype)


@pytest.mark.parametrize("name", golden.loss_names("lmcl_imagenet_memory_"))
def test_memory(name, dtype):
    """With the official slip in the negatives, see docs/deviations.md; banks before and after."""
    hyper, arrays = golden.loss(name)
    count, stages = hyper["number_net"], hyper["number_stage"]
    memories = golden.numbered(arrays, "in_memory", dtype)
    heads = heads_of(arrays, "in", dtype)

    def total(heads, features, rows):
        embeddings = projected(heads, features, hyper["feat_dim"])
        terms = losses.layer_memory_contrast(
            embeddings,
            by_pair(jnp.stack(rows), count, stages),
            arrays["in_pos_idx"],
            arrays["in_neg_idx"],
            memories,
            temperature=hyper["tau"],
            kd_temperature=hyper["kd_T"],
            shared_negatives=True,
        )
        terms = jax.tree.map(jnp.mean, terms)
        last = [each[-1] for each in embeddings]
        updated = losses.updated_memories(
            memories, arrays["in_pos_idx"][:, 0], last, momentum=hyper["nce_m"]
        )
        loss = 0.1 * terms.vcl + terms.soft_vcl + 0.1 * terms.icl + terms.soft_icl
        return loss, (terms, updated)

    inputs = (
        heads,
        by_stage(arrays, "in_feat", count, dtype),
        golden.numbered(arrays, "in_weight", dtype),
    )
    run = jax.jit(jax.value_and_grad(total, range(3), has_aux=True))
    (loss, (terms, updated)), gradients = run(*inputs)
    for term in TERMS:
        golden.compare(getattr(terms, term), arrays[f"out_{term}"], dtype)
    golden.compare(loss, arrays["out_loss"], dtype)
    compare_trees(list(updated), golden.numbered(arrays, "out_memory", dtype), dtype)
    expected = (
        heads_of(arrays, "grad", dtype),
        by_stage(arrays, "grad_feat", count, dtype),
        golden.numbered(arrays, "grad_weight", dtype),
    )
    compare_trees(gradients, expected, dtype)


@pytest.mark.parametrize("name", golden.loss_names("lmcl_meta_sgd_"))
def test_hyper_gradient(name, dtype):
    """The exact one: the official code's differs where there is momentum, see deviations.md."""
    hyper, arrays = golden.loss(name)
    x = {key: value.astype(dtype) for key, value in arrays.items() if key.startswith("in_")}

    def inner(theta, lam):
        squares = jax.nn.sigmoid(lam) * (x["in_A"] @ theta - x["in_b"]) ** 2
        return 0.1 * squares.sum() + 0.1 * (theta**4).sum()

    def outer(theta):
        return 0.1 * ((x["in_C"] @ theta - x["in_d"]) ** 2).sum()

    def after(lam):
        count = hyper["inner_steps"]
        theta = unrolled_sgd(
            x["in_theta"],
            lambda theta, last: jnp.where(last, outer(theta), inner(theta, lam)),
            np.arange(count) == count - 1,
            learning_rate=hyper["lr"],
            momentum=hyper["momentum"],
            weight_decay=hyper["weight_decay"],
        )
        return outer(theta), theta

    (value, theta), gradient = jax.jit(jax.value_and_grad(after, has_aux=True))(x["in_lam"])
    golden.compare(theta, arrays["out_theta_after_steps"], dtype)
    golden.compare(value, arrays["out_outer"], dtype)
    golden.compare(gradient, arrays["out_grad_lam_exact"], dtype)
    if not hyper["momentum"]:
        golden.compare(gradient, arrays["out_grad_lam"], dtype)


RANDOM = np.random.default_rng(0)
LABELS = np.array([0, 0, 1, 1, 2, 2])


def random_embeddings(networks: int = 2, stages: int = 2) -> list[list[np.ndarray]]:
    x = RANDOM.normal(size=(networks, stages, len(LABELS), 4)).astype(np.float32)
    return [list(each) for each in x / np.linalg.norm(x, axis=-1, keepdims=True)]


def test_contrast_of_one_stage_is_mutual_contrast():
    """Weights of one half in both orders make up for counting a pair twice."""
    embeddings = random_embeddings(3, 1)
    pairs = itertools.permutations(range(3), 2)
    weights = {pair: np.full((1, 1, len(LABELS)), 0.5, np.float32) for pair in pairs}
    options = {"temperature": 0.1, "kd_temperature": 3.0}

    @jax.jit
    def both():
        layered = losses.layer_contrast(embeddings, weights, LABELS, **options)
        return layered, losses.mutual_contrast([x for (x,) in embeddings], LABELS, **options)

    layered, plain = both()
    plain = plain._replace(vcl=2 * plain.vcl)  # of every network with each of the two others
    for term in TERMS:
        np.testing.assert_allclose(getattr(layered, term), getattr(plain, term), rtol=1e-5)


def test_slip_of_the_official_negatives_concerns_vcl_alone():
    embeddings = random_embeddings()
    memories = list(RANDOM.normal(size=(2, 12, 4)).astype(np.float32))
    weights = losses.layer_weights(embeddings)
    positives, negatives = np.arange(12).reshape(6, 2), RANDOM.integers(0, 12, (6, 3))

    @jax.jit
    def both():
        return [
            losses.layer_memory_contrast(
                embeddings,
                weights,
                positives,
                negatives,
                memories,
                temperature=0.1,
                kd_temperature=3.0,
                shared_negatives=shared,
            )
            for shared in (True, False)
        ]

    official, ours = both()
    for term in TERMS:
        same = np.allclose(getattr(official, term), getattr(ours, term), rtol=1e-5)
        assert same == ("icl" in term)


@pytest.mark.parametrize("change", ["one network", "sizes", "weights"])
def test_refusals(change):
    embeddings = random_embeddings()
    weights = dict(losses.layer_weights(embeddings))
    if change == "one network":
        embeddings = embeddings[:1]
    elif change == "sizes":
        embeddings[1][1] = embeddings[1][1][:, :3]
    else:
        del weights[1, 0]
    with pytest.raises(ValueError, match=r"L-MCL (compares|needs weights)"):
        losses.layer_contrast(embeddings, weights, LABELS, temperature=0.1, kd_temperature=3.0)
