"""ONE, CL-ILR, OKDDip and MCL-OKD as methods. Their losses are tested with the golden numbers."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses, methods, models
from kdjax.errors import UserError
from kdjax.methods.baselines.distillation.negatives import by_class
from kdjax.methods.registry import Clock
from kdjax.runs import metrics
from tests import tiny_runs as runs
from tests.models import helpers

NAMES = ("one", "okddip", "cl_ilr", "mcl_okd")
SHARED = {"one": 2, "okddip": 2, "cl_ilr": 1, "mcl_okd": 1}
COUNT, PER_EPOCH = 3, 10
LABELS = np.arange(20) % 5
BATCH = {
    "image": helpers.IMAGES,
    "label": LABELS[4:8].astype(np.int32),
    "index": np.arange(4, 8, dtype=np.int32),
    "step": np.int32(5 * PER_EPOCH),
}
CONTEXT = {
    "okddip": {"clock": Clock(20, PER_EPOCH, 300)},
    "mcl_okd": {"train_labels": LABELS, "negatives": 6, "features": 8},
}


def method(name: str, shared: int | None = None, **options) -> methods.Method:
    shared = SHARED[name] if shared is None else shared
    cohort = models.Cohort((helpers.tiny(),) * COUNT, shared_stages=shared)
    return getattr(methods, name)(cohort, **CONTEXT.get(name, {}), **options)


@functools.cache
def started(name: str):
    """Parameters and state of random numbers, but for the constants."""
    made, found = method(name), {}

    def init(key, images):
        params, model_state = made.init(key, images)
        found.update({key: model_state.pop(key) for key in {methods.CONSTANTS} & set(model_state)})
        return params, model_state

    params, model_state = helpers.random_variables(made._replace(init=init))
    constants = {methods.CONSTANTS: {"others": by_class(LABELS)}} if found else {}
    return params, model_state | constants


@functools.cache
def stepped(name: str):
    """`loss, metrics, updated state, gradients, predictions` of one step."""

    @jax.jit
    def run(params, model_state):
        step = jax.value_and_grad(method(name).loss, has_aux=True)
        (loss, (updated, values)), gradients = step(params, model_state, BATCH, jax.random.key(1))
        return loss, values, updated, gradients

    return run(*started(name))


@functools.cache
def alone():
    return jax.jit(helpers.tiny().apply)


# Compiled by default; CL-ILR's and OKDDip's steps with `-m slow`.
STEPPED = [
    pytest.param(name, marks=[] if name in ("one", "mcl_okd") else pytest.mark.slow)
    for name in NAMES
]


@pytest.mark.parametrize("name", NAMES)
def test_networks_predict_as_they_do_alone(name):
    """With the variables that a checkpoint says are theirs."""
    made = method(name)
    params, model_state = started(name)
    found = jax.jit(made.predict)(params, model_state, helpers.IMAGES)
    networks = [f"network_{index}" for index in range(COUNT)]
    assert set(found) == {*networks, "ensemble"}
    for index, network in enumerate(networks):
        variables = made.variables(params, model_state, index)
        helpers.assert_equal(alone()(variables, helpers.IMAGES).logits, found[network])
    if name != "one":
        mean = sum(found[network] for network in networks) / COUNT
        np.testing.assert_allclose(found["ensemble"], mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", STEPPED)
def test_all_parameters_learn_and_terms_add_up(name):
    loss, values, updated, gradients = stepped(name)
    terms = {
        "one": {"cross_entropy": 1, "ensemble/cross_entropy": 1, "distillation": 1},
        "okddip": {
            "cross_entropy": 1,
            "distillation": values.get("ramp_up"),
            "leader_distillation": values.get("ramp_up"),
        },
        "cl_ilr": {"cross_entropy": 0.5, "distillation": 0.5},
        "mcl_okd": {"cross_entropy": 1, "distillation": 1, "contrast": 0.025},
    }[name]
    total = sum(weight * values[term] for term, weight in terms.items())
    np.testing.assert_allclose(loss, total, rtol=1e-6)
    assert all(values[term] > 0 for term in terms)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        # The bias of a gate before a BatchNorm has none.
        if "'gate_dense'" not in jax.tree_util.keystr(path):
            assert np.abs(leaf).max() > 0, path
    changed = jax.tree.map(np.array_equal, updated["batch_stats"], started(name)[1]["batch_stats"])
    assert not any(jax.tree.leaves(changed))


@pytest.mark.parametrize(("epoch", "weight"), [(0, np.exp(-5)), (5, np.exp(-1.25)), (10, 1.0)])
def test_distillation_of_okddip_rises(epoch, weight):
    """The weight is a metric, so that nothing else is computed for it."""
    made = method("okddip", ramp_up_epochs=10)

    def ramp_up(step):
        _, (_, values) = made.loss(*started("okddip"), BATCH | {"step": step}, None)
        return values["ramp_up"]

    # Only what the weight depends on is left of the program, which compiles at once.
    found = jax.jit(ramp_up)(jnp.int32(epoch * PER_EPOCH + 3))
    np.testing.assert_allclose(found, weight, rtol=1e-6)


def test_banks_of_mcl_okd_move_where_the_batch_was():
    _, _, updated, gradients = stepped("mcl_okd")
    before = started("mcl_okd")[1][methods.MEMORY]
    for name, bank in updated[methods.MEMORY].items():
        moved = np.any(bank != before[name], axis=1)
        np.testing.assert_array_equal(np.flatnonzero(moved), BATCH["index"])
        np.testing.assert_allclose(np.linalg.norm(bank[4:8], axis=1), 1, rtol=1e-5)
        assert np.abs(gradients["embeddings"][name]["linear"]["kernel"]).max() > 0


def test_mutual_nce_of_two_devices_is_that_of_the_global_batch():
    random = np.random.default_rng(0)
    banks = list(random.normal(size=(2, 12, 5)).astype(np.float32))
    inputs = random.normal(size=(2, 4, 5)).astype(np.float32)
    embeddings = inputs / np.linalg.norm(inputs, axis=-1, keepdims=True)
    index, contrast = np.arange(3, 7), random.integers(0, 12, (4, 6))

    def run(embeddings, index, contrast, axis_name=None):
        values, updated = losses.mutual_nce(
            embeddings, index, contrast, banks, temperature=0.1, momentum=0.5, axis_name=axis_name
        )
        return values.mean(), updated

    def device(*inputs):
        value, updated = run(*inputs, axis_name="batch")
        return jax.lax.pmean(value, "batch"), updated

    def halves(x, axis=0):
        return np.stack(np.split(np.asarray(x), 2, axis))

    mapped = jax.vmap(device, axis_name="batch")
    both = mapped(list(map(halves, embeddings)), halves(index), halves(contrast))
    whole = run(list(embeddings), index, contrast)
    for number in range(2):
        mine = jax.tree.map(lambda x, number=number: x[number], both)
        helpers.assert_equal(mine, whole)


@pytest.mark.parametrize(
    ("name", "shared", "options", "message"),
    [
        ("one", 0, {}, "config.shared_stages=0: the gate"),
        ("cl_ilr", 0, {}, "share at least one"),
        ("cl_ilr", 2, {"pair_stages": 2}, "config.cl_ilr.pair_stages=2.* of 3 stages"),
        ("okddip", 2, {"ramp_up_epochs": 0}, "ramp_up_epochs"),
    ],
)
def test_refusals(name, shared, options, message):
    with pytest.raises(UserError, match=message) as error:
        method(name, shared, **options)
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_run_learns(tmp_path, name):
    """`configs/online.py:NAME,digits`, but for its network, data and length, on two devices."""
    source = runs.write_arrays(tmp_path / "tiny.npz")
    changes = {"epochs": 3, "optimizer__learning_rate": 0.02, "optimizer__warm_up_epochs": 0}
    changes |= {"mcl_okd__negatives": 16} if name == "mcl_okd" else {}
    flags = [
        f"--config={runs.ROOT}/configs/online.py:{name},digits,tiny",
        *runs.settings(source, **changes)[1:],
    ]
    runs.finish(runs.start(*flags, f"--workdir={tmp_path / 'run'}", devices=2))
    rows = metrics.read(tmp_path / "run" / "metrics.jsonl")
    assert rows[-1]["train/cross_entropy"] < rows[0]["train/cross_entropy"]
    assert {f"{network}/top1" for network in ("network_0", "network_2", "ensemble")} <= set(rows[0])
    assert rows[-1]["ensemble/top1"] > 1 / runs.CLASSES
