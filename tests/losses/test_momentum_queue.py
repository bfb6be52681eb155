"""Self-supervised MCL on MoCo: the official code's numbers, and properties."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses
from kdjax.numerics import unit
from tests import golden

RANDOM = np.random.default_rng(0)
BATCH, FEATURES, QUEUED = 4, 5, 7
TERMS = losses.MutualContrast._fields


def units(*shape):
    return [np.asarray(unit(x)) for x in RANDOM.normal(size=shape).astype(np.float32)]


QUERIES, KEYS = units(2, BATCH, FEATURES), units(2, BATCH, FEATURES)
QUEUES = units(2, QUEUED, FEATURES)
contrast = functools.partial(losses.queue_contrast, temperature=0.1, kd_temperature=3.0)


def encoder(arrays: dict, name: str, dtype) -> dict:
    leaves = ("body.weight", "body.bias", "fc.weight", "fc.bias")
    return {leaf: arrays[f"{name}.{leaf}"].astype(dtype) for leaf in leaves}


def encode(params: dict, x):
    hidden = jax.nn.relu(x @ params["body.weight"].T + params["body.bias"])
    return unit(hidden @ params["fc.weight"].T + params["fc.bias"])


@pytest.mark.parametrize("name", golden.loss_names("mcl_moco_"))
def test_queue_contrast(name, dtype):
    hyper, arrays = golden.loss(name)
    count = range(hyper["number_net"])
    trained = [encoder(arrays, f"in_encoder_q_{i}", dtype) for i in count]
    slow = [encoder(arrays, f"in_encoder_k_{i}", dtype) for i in count]
    queues = [arrays["in_queue"][i].T.astype(dtype) for i in count]
    first, second = (arrays[f"in_im_{which}"].astype(dtype) for which in "qk")

    def step(trained):
        updated = losses.momentum_update(slow, trained, hyper["m"])
        keys = [encode(params, second) for params in updated]
        queries = [encode(params, first) for params in trained]
        values = losses.queue_contrast(
            queries, keys, queues, temperature=hyper["T"], kd_temperature=hyper["kl_T"]
        )
        values = jax.tree.map(jnp.mean, values)
        start = hyper["queue_ptr_start"]
        after = [losses.enqueue(*each, start) for each in zip(queues, keys, strict=True)]
        return sum(values), (values, updated, after)

    run = jax.jit(jax.value_and_grad(step, has_aux=True))
    (loss, (values, updated, after)), gradients = run(trained)
    golden.compare(loss, arrays["out_loss"], dtype)
    for term in TERMS:
        golden.compare(getattr(values, term), arrays[f"out_{term}"], dtype)
    for i in count:
        for leaf, gradient in gradients[i].items():
            golden.compare(gradient, arrays[f"grad_encoder_q_{i}.{leaf}"], dtype)
            golden.compare(updated[i][leaf], arrays[f"out_encoder_k_{i}.{leaf}"], dtype)
        golden.compare(after[i].T, arrays["out_queue"][i], dtype)
    pointer = (hyper["queue_ptr_start"] + len(first)) % hyper["K"]
    np.testing.assert_array_equal(arrays["out_queue_ptr"], pointer)


def test_gradients_reach_queries_only():
    def total(queries, keys, queues):
        return sum(term.sum() for term in contrast(queries, keys, queues))

    gradients = jax.grad(total, (0, 1, 2))(QUERIES, KEYS, QUEUES)
    assert all(np.any(gradient) for gradient in gradients[0])
    assert not any(np.any(gradient) for part in gradients[1:] for gradient in part)


def test_one_network_is_moco():
    values = contrast(QUERIES[:1], KEYS[:1], QUEUES[:1])
    logits = np.concatenate(
        [(QUERIES[0] * KEYS[0]).sum(1, keepdims=True), QUERIES[0] @ QUEUES[0].T], axis=1
    )
    expected = losses.cross_entropy(logits / 0.1, np.zeros(BATCH, int))
    np.testing.assert_allclose(values.vcl, expected, rtol=1e-5)
    assert not any(np.any(term) for term in values[1:])


def test_queue_goes_round_and_keeps_the_order_of_the_global_batch():
    keys = np.arange(4, dtype=np.float32)[:, None]
    queue, expected = np.full((6, 1), -1, np.float32), [2, 3, -1, -1, 0, 1]
    np.testing.assert_array_equal(losses.enqueue(queue, keys, 4)[:, 0], expected)
    mapped = jax.vmap(
        functools.partial(losses.enqueue, axis_name="batch"),
        in_axes=(None, 0, None),
        axis_name="batch",
    )
    for each in mapped(queue, keys.reshape(2, 2, 1), 4):
        np.testing.assert_array_equal(each[:, 0], expected)


def test_half_precision_is_summed_in_float32():
    rounded = [x.astype(jnp.bfloat16) for x in QUERIES]
    values = contrast(rounded, KEYS, QUEUES)
    expected = contrast([x.astype(np.float32) for x in rounded], KEYS, QUEUES)
    assert values.vcl.dtype == jnp.float32
    jax.tree.map(np.testing.assert_array_equal, values, expected)


@pytest.mark.parametrize(
    ("queries", "keys", "queues"),
    [
        ([], [], []),
        (QUERIES, KEYS[:1], QUEUES),
        (QUERIES, KEYS, QUEUES[:1]),
        (QUERIES, [key[:2] for key in KEYS], QUEUES),
        (QUERIES, KEYS, [queue.T for queue in QUEUES]),
    ],
)
def test_shapes_that_do_not_go_together(queries, keys, queues):
    with pytest.raises(ValueError, match="queue contrast needs"):
        contrast(queries, keys, queues)


def test_more_keys_than_places():
    with pytest.raises(ValueError, match="8 keys do not fit into a queue of 7"):
        losses.enqueue(QUEUES[0], np.zeros((8, FEATURES)), 0)
