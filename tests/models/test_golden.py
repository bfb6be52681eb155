"""All networks against the papers' official code."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models
from kdjax.models import self_teacher
from tests import golden
from tests.models import reference_networks
from tests.models.official import Computed, GoldenCase

BUFFERS = ("bn_mean", "bn_var", "bn_count")
# Of a network in the default run: BatchNorm layers, which tell how long it takes to compile, and
# multiply-adds and side of the images, which tell how long it takes to run.
MOST_LAYERS, MOST_MULTIPLY_ADDS, LARGEST_SIDE = 40, 150e6, 64


def cases() -> list:
    """Every golden network; all but the shallowest of a family, if it is shallow, are slow."""
    folder = golden.root()
    if folder is None:
        return [pytest.param(None, marks=pytest.mark.skip(reason="golden numbers not found"))]
    nets = json.loads((folder / "nets" / "index.json").read_text())["nets"]
    found = [reference_networks.case(net["name"], net["reference"]) for net in nets]
    shallowest: dict = {}
    for case in found:
        record = json.loads((folder / "nets" / f"{case.name}.json").read_text())
        depth = (record["bn_total"], np.prod(record["x"]["shape"]), record["param_count"])
        if _is_small(record):
            candidate, family = (depth, case.name), _family(case)
            shallowest[family] = min(shallowest.get(family, candidate), candidate)
    fast = {name for _, name in shallowest.values()}
    return [
        pytest.param(case, id=case.name, marks=() if case.name in fast else pytest.mark.slow)
        for case in found
    ]


def _is_small(record: dict) -> bool:
    side = record["x"]["shape"][1]
    counted = record.get("multi_adds", {"value": 0, "resolution": side})
    multiply_adds = counted["value"] * (side / counted["resolution"]) ** 2
    return (
        record["bn_total"] <= MOST_LAYERS
        and multiply_adds <= MOST_MULTIPLY_ADDS
        and side <= LARGEST_SIDE
    )


def _family(case: GoldenCase) -> tuple:
    """What a network is made of: its class and, of those without branches, all that differs."""
    module = case.build(jnp.float32)
    if not isinstance(module, models.StagedNetwork):
        return (type(module).__name__,)
    kinds = ("block", "shortcut", "stem_relu", "stem_size")
    return (type(module).__name__, *(getattr(module, kind, None) for kind in kinds))


@pytest.fixture(scope="module", params=cases())
def computed(request) -> Computed:
    return Computed(request.param)


def test_parameters_and_multiply_adds(computed):
    kinds = {name: kind for name, _, kind in computed.record["state_dict"]}
    unread = {n: x for n, x in computed.report.unread.items() if kinds[n] not in BUFFERS}
    counted = models.parameter_count([computed.variables["params"], unread])
    assert counted == computed.record["param_count"]
    expected = computed.record.get("multi_adds")
    if expected is not None:
        resolution, module = expected["resolution"], computed.module
        if isinstance(module, self_teacher.SelfTaught):
            # What the official network runs in evaluation, in which its multiply-adds are counted.
            module = self_teacher.Branched(module.network, module.heads)
        shape = (resolution, resolution, computed.images.shape[-1])
        assert models.multiply_adds(module, shape) == expected["value"]


def compare(computed: Computed, mode: str) -> set[str]:
    """Compares what is computed in float32; returns the golden names of what was compared."""
    named, _ = computed.results(mode)
    compared = set()
    for name, value in named.items():
        key = f"{mode}_{name}"
        # Some times the official code's own rounding, where that is large: of HCGNets, whose
        # BatchNorm over four vectors amplifies it.
        rounding = computed.record["torch_f32_vs_f64_rel"].get(key, 0)
        tolerance = max(1e-4, 4 * rounding)
        if key in computed.arrays:
            # MCL-OKD's embeddings keep the axes that pooling leaves.
            expected = computed.arrays.get(f"{key}_f64", computed.arrays[key])
            golden.assert_close(value, expected.reshape(value.shape), tolerance)
            compared.add(key)
        elif key in computed.record["arrays"] and f"{key}_s0" in computed.arrays:
            record = computed.record["arrays"][key]
            assert list(value.shape) == record["shape"]
            stride = record.get("stride", 1)
            golden.assert_close(value[:1, ::stride, ::stride], computed.arrays[f"{key}_s0"])
            golden.assert_close(value.mean((1, 2)), computed.arrays[f"{key}_mean"])
            rms = np.sqrt((value**2).mean((1, 2)))
            golden.assert_close(rms, computed.arrays[f"{key}_rms"])
            compared.add(key)
    return compared


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_outputs(computed, mode):
    compared = compare(computed, mode)
    recorded = {
        key
        for key in computed.record["arrays"]
        if key.startswith(f"{mode}_") and not key.startswith(("train_bn", "train_probe"))
    }
    recorded -= {key for key in recorded if key.endswith(("_f64", "_s0", "_mean", "_rms"))}
    assert recorded <= compared, f"not compared: {recorded - compared}"


@pytest.mark.parametrize("place", ["first", "last"])
def test_running_statistics(computed, place):
    _, batch_stats = computed.results("train")
    state = computed.official(computed.variables | {"batch_stats": batch_stats})
    for statistic in ("running_mean", "running_var"):
        value = state[f"{computed.record[f'bn_{place}']}.{statistic}"]
        golden.assert_close(value, computed.arrays[f"train_bn_{place}_{statistic}"])


def test_round_trip_is_exact(computed):
    back = computed.official(computed.variables)
    assert set(back) == set(computed.state)
    for name, value in computed.state.items():
        assert back[name].dtype == value.dtype
        np.testing.assert_array_equal(back[name], value)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_logits_in_float64(computed, mode):
    named, _ = computed.results(mode, jnp.float64)
    ending = "_f64"
    stored = {
        key.removeprefix(f"{mode}_").removesuffix(ending): array
        for key, array in computed.arrays.items()
        if key.startswith(f"{mode}_") and key.endswith(ending)
    }
    logits = {name: array for name, array in stored.items() if name in named}
    assert set(stored) - set(logits) <= {"probe", "grad_norm"}
    for name, expected in logits.items():
        golden.compare(named[name].reshape(expected.shape), expected, np.float64)


def test_gradients_in_float64(computed):
    _, probe = computed.results("train", jnp.float64)
    golden.compare(probe["value"], computed.arrays["train_probe_f64"], np.float64)
    state = computed.official(computed.variables | {"params": probe["gradients"]})
    norms = [
        np.linalg.norm(state[name].ravel())
        for name, _, kind in computed.record["state_dict"]
        if kind not in BUFFERS
    ]
    golden.assert_close(np.array(norms), computed.arrays["train_grad_norm_f64"], 1e-9)
