"""All networks against the papers' official code."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models
from kdjax.interop import torch as interop
from tests import golden
from tests.models import (
    cases_densenet,
    cases_hcgnet,
    cases_mobilenet_v2,
    cases_online,
    cases_resnet,
    cases_self_kd,
    cases_shufflenet,
    cases_vgg,
)
from tests.models.official import Computed, GoldenCase

CASES: list[GoldenCase] = [
    *cases_densenet.CASES,
    *cases_hcgnet.CASES,
    *cases_mobilenet_v2.CASES,
    *cases_online.CASES,
    *cases_resnet.CASES,
    *cases_self_kd.CASES,
    *cases_shufflenet.CASES,
    *cases_vgg.CASES,
]
BUFFERS = ("bn_mean", "bn_var", "bn_count")


def parameters(cases: list[GoldenCase]) -> list:
    """For pytest: the small ones in the default run, the others marked slow."""
    return [
        pytest.param(case, id=case.name, marks=() if case.fast else pytest.mark.slow)
        for case in cases
    ]


@pytest.fixture(scope="module", params=parameters(CASES))
def computed(request) -> Computed:
    return Computed(request.param)


def test_every_golden_network_has_a_case():
    index = json.loads(golden.path("nets", "index.json").read_text())
    assert index["group"] == "open"
    assert {case.name for case in CASES} == {net["name"] for net in index["nets"]}


def test_parameters_and_multiply_adds(computed):
    kinds = {name: kind for name, _, kind in computed.record["state_dict"]}
    unread = {n: x for n, x in computed.report.unread.items() if kinds[n] not in BUFFERS}
    counted = models.parameter_count([computed.variables["params"], unread])
    assert counted == computed.record["param_count"]
    expected = computed.record.get("multi_adds")
    if expected is not None:
        module = computed.case.counted(computed.module)
        resolution = expected["resolution"]
        assert models.multiply_adds(module, (resolution, resolution, 3)) == expected["value"]


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_outputs(computed, mode):
    named, _ = computed.results(mode)
    compared = set()
    for name, value in named.items():
        key = f"{mode}_{name}"
        if key in computed.arrays:
            # MCL-OKD's embeddings keep the axes that pooling leaves.
            expected, tolerance = computed.expected(key)
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
    recorded = {
        key
        for key in computed.record["arrays"]
        if key.startswith(f"{mode}_") and not key.startswith(("train_bn", "train_probe"))
    }
    recorded -= {key for key in recorded if key.endswith(("_f64", "_s0", "_mean", "_rms"))}
    recorded -= {"train_grad_norm_f64"}
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


GRADIENTS = {"hsakd_resnet8", "hsakd_ShuffleV2_05", "hsakd_wrn_16_1"}
GRADIENTS_SLOW = {
    "hsakd_mobilenetV2",
    "okd_vgg16",
    "hsakd_resnet18_imagenet",
    "hsakd_resnet8x4_aux",
    "hsakd_ShuffleV1_c20",
    "okd_densenetd40k12",
    "okd_hcgnet_A1",
    "lmcl_wrn_16_2_cifar",
    "mcl_wrn_16_2_n4",
    "okd_cl_ilr_densenetd40k12_n4",
    "okd_cl_ilr_resnet32_n4",
    "okd_okddip_resnet32_n4",
    "okd_one_resnet32_n3",
    "okd_resnet110",
    "selfkd_CIFAR_ResNet18_byot",
    "selfkd_MixSKD_CIFAR_ResNet18",
    "selfkd_ResNet18_BiFPN",
    "sfp_resnet20",
}


def _rows(logits):
    """`[B, C]` as it is, `[B, C, n]` as `[B * n, C]`."""
    return logits if logits.ndim == 2 else logits.swapaxes(1, 2).reshape(-1, logits.shape[1])


@pytest.mark.parametrize(
    "case",
    parameters(
        [
            case._replace(fast=case.name in GRADIENTS)
            for case in CASES
            if case.name in GRADIENTS | GRADIENTS_SLOW
        ]
    ),
)
def test_gradients_in_float64(case):
    record, arrays, images = golden.network(case.name)
    logits = record["train_probe"].split("sum over ")[1].split(" of cross")[0].split(", ")
    with jax.enable_x64(True):
        module = case.build(jnp.float64)
        variables, report = interop.import_state_dict(module, golden.state_dict(record))
        variables = jax.tree.map(lambda x: x.astype(np.float64), variables)

        @jax.jit
        @jax.value_and_grad
        def probe(params):
            inputs = variables | {"params": params}
            outputs, _ = module.apply(
                inputs, images.astype(np.float64), train=True, mutable=["batch_stats"]
            )
            named = case.named(outputs)
            total = 0.0
            for name in logits:
                log_probs = jax.nn.log_softmax(_rows(named[name]))
                labels = jnp.arange(len(log_probs))
                total -= log_probs[labels, labels % log_probs.shape[-1]].mean()
            return total

        value, gradients = probe(variables["params"])
        assert value.dtype == jnp.float64
        golden.assert_close(value, arrays["train_probe_f64"], 1e-9)
    state = interop.export_state_dict(
        module, variables | {"params": gradients}, dialect=report.dialect
    )
    norms = [
        np.linalg.norm(state[name].ravel())
        for name, _, kind in record["state_dict"]
        if kind not in BUFFERS
    ]
    golden.assert_close(np.array(norms), arrays["train_grad_norm_f64"], 1e-8)
