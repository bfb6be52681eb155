"""DeepLabV3 against torchvision's, its state dicts, and its place among networks."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from kdjax import networks, segmentation
from kdjax.errors import UserError
from kdjax.interop import mapping, state_dict_entries
from kdjax.interop import torch as interop
from kdjax.networks import InputSpec, Network, NetworkSpec
from kdjax.segmentation.deeplab_heads import AtrousPyramid
from tests import golden, golden_transfer
from tests.models.helpers import random_variables, tiny

SMALL = "seg_deeplabv3_resnet18_os32_noaux"
LARGE = [
    pytest.param("seg_deeplabv3_resnet18", marks=pytest.mark.slow),
    pytest.param("seg_deeplabv3_resnet50", marks=pytest.mark.slow),
]
NO_DROPOUT = {"dropout": 0.0, "head_dropout": 0.0, "auxiliary_dropout": 0.0}


def module_of(record: dict, dtype) -> segmentation.DeepLabV3:
    """The network of a golden record, without dropout."""
    name = record["name"].split("_")[2]
    spec = NetworkSpec.of(f"{name}_deeplab{record['output_stride']}", record["classes"])
    module = spec.build(dtype=dtype)
    return module.clone(auxiliary=record["aux"], **NO_DROPOUT)


def computed(case: golden_transfer.Network, dtype, train: bool):
    """The golden arrays of a mode, by their names, from one compiled program."""
    module = module_of(case.record, dtype)
    variables, _ = interop.import_state_dict(module, case.state)
    labels = jnp.asarray(case.arrays["in_labels"])

    def loss(params):
        outputs, updated = module.apply(
            {"params": params, "batch_stats": variables["batch_stats"]},
            jnp.asarray(case.images, dtype),
            train=train,
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=lambda module, _: isinstance(module, AtrousPyramid),
        )
        heads = {"out": (outputs.logits, outputs.coarse)}
        if outputs.auxiliary is not None:
            heads["aux"] = (outputs.auxiliary, outputs.coarse_auxiliary)
        named = {}
        for head, (logits, coarse) in heads.items():
            values = segmentation.pixel_cross_entropy(logits, labels)
            mean = segmentation.weighted_mean(values, segmentation.pixel_weights(labels))
            named[f"loss_{head}"] = mean
            named[f"{head}_low"], named[f"{head}_s4"] = coarse, logits[:, ::4, ::4]
        named["loss_total"] = named["loss_out"] + 0.5 * named.get("loss_aux", 0)
        maps = {f"layer{key[-1]}": value for key, value in outputs.features.items()}
        maps["aspp"] = updated["intermediates"]["head"]["aspp"]["__call__"][0]
        for key, value in maps.items():
            named[f"{key}_mean"] = value.mean((1, 2))
            named[f"{key}_rms"] = jnp.sqrt(jnp.square(value).mean((1, 2)))
        return named["loss_total"], (named, updated["batch_stats"])

    variables = jax.tree.map(lambda x: x.astype(dtype), variables)
    step = jax.jit(jax.grad(loss, has_aux=True))
    if dtype == jnp.float64:
        step = step.lower(variables["params"]).compile(golden.OPTIMIZED)
    gradients, (named, statistics) = step(variables["params"])
    entries = state_dict_entries.entries(
        next(iter(mapping.namings(module).values())),
        {"params": gradients, "batch_stats": statistics},
    )
    flat = traverse_util.flatten_dict({"params": gradients, "batch_stats": statistics})
    by_name = {entry.name: np.asarray(flat[entry.path], np.float64) for entry in entries}
    norms = [np.linalg.norm(by_name[name].ravel()) for name in case.record["parameters"]]
    named["grad_norm"] = np.array(norms)
    return named | {f"bn_{name}": x for name, x in by_name.items() if "running" in name}


@pytest.mark.slow
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", [SMALL, "seg_deeplabv3_resnet18", "seg_deeplabv3_resnet50"])
def test_golden_networks(name, train):
    case, mode = golden_transfer.network(name), "train" if train else "eval"
    wide = name != SMALL
    with jax.enable_x64(wide):
        named = computed(case, jnp.float64 if wide else jnp.float32, train)
    expected = {
        key: value
        for key, value in case.arrays.items()
        if key.startswith(f"{mode}_") and not key.endswith("_f32")
    }
    assert expected.keys() == {f"{mode}_{key}" for key in named} & expected.keys()
    for key, value in expected.items():
        head = key.removesuffix("_low").removesuffix("_s4")
        rounding = case.record["torch_f32_vs_f64_rel"].get(head, 0)
        tolerance = 1e-8 if wide else max(4 * rounding, 2e-5)
        if key == "train_grad_norm" and not wide:
            continue  # of tiny batches: float64 alone
        golden.assert_close(named[key.removeprefix(f"{mode}_")], value, tolerance)


@pytest.mark.parametrize("name", [SMALL, *LARGE])
def test_state_dicts_go_in_and_out(name):
    case = golden_transfer.network(name)
    module = module_of(case.record, jnp.float32)
    variables, report = interop.import_state_dict(module, case.state)
    assert report.dialect == "torchvision"
    assert interop.count_classes(module, case.state) == case.record["classes"]
    state = interop.export_state_dict(module, variables, counters=report.counters)
    assert state.keys() == case.state.keys()
    for key, value in case.state.items():
        np.testing.assert_array_equal(state[key], value)


def test_fields_of_cirkd_and_dropout():
    images = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype(np.float32)
    module = segmentation.DeepLabV3(
        tiny().clone(output_stride=2), rates=(1, 2, 3), width=6, align_corners=True
    )
    variables = random_variables(module, images)
    assert variables["params"]["head"]["conv"]["kernel"].shape == (3, 3, 6, 6)
    assert variables["params"]["auxiliary"]["conv"]["kernel"].shape == (3, 3, 8, 2)
    assert "classifier" not in variables["params"]["backbone"]

    @jax.jit
    def run(key):
        outputs = module.apply(variables, images)
        trained, _ = module.apply(
            variables, images, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
        )
        return outputs, trained

    outputs, first = run(jax.random.key(0))
    _, second = run(jax.random.key(1))
    assert outputs.coarse.shape == (2, 4, 6, 5) and outputs.logits.shape == (2, 8, 12, 5)
    corners = np.s_[:, :: 8 - 1, :: 12 - 1], np.s_[:, :: 4 - 1, :: 6 - 1]
    np.testing.assert_allclose(outputs.logits[corners[0]], outputs.coarse[corners[1]], atol=1e-6)
    assert np.abs(first.coarse - second.coarse).max() > 1e-3
    assert np.abs(first.auxiliary - second.auxiliary).max() > 1e-6


def test_descriptions_keep_all_that_builds_a_network(tmp_path):
    options = (("output_stride", 2), ("rate", 2), ("width", 8), ("auxiliary", 0))
    spec = NetworkSpec.of("resnet8_deeplab2", 3, InputSpec((8, 8)))
    assert spec.full_name == "resnet8_deeplab2"
    form = spec.form._replace(options=(*options, ("align_corners", 1)))
    spec = dataclasses.replace(spec, form=form)
    again = NetworkSpec.from_dict(spec.to_dict())
    assert again == spec
    module = again.build()
    assert (module.rates, module.width, module.align_corners) == ((2, 4, 6), 8, True)
    assert (module.auxiliary, module.network.stride) == (False, 2)
    networks.save(tmp_path / "it", Network(spec, random_variables(module)), {})
    loaded = networks.load(tmp_path / "it")
    assert loaded.spec == spec
    with pytest.raises(UserError, match="has no classifier of images"):
        _ = loaded.backbone


def test_networks_without_dilation_have_their_stride_alone():
    network = NetworkSpec.of("vgg8", 3).build()
    assert segmentation.deeplab(network, network.stride).network is network
    with pytest.raises(UserError, match="output_stride=16: VGG cannot be dilated, its stride is 8"):
        segmentation.deeplab(network, 16)
