"""Segmentation beside compact and imported networks, pruning, and methods that classify images."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

import kdjax
from kdjax import compaction, networks
from kdjax import config as configs
from kdjax import methods as all_methods
from kdjax.cli.command_line import parse
from kdjax.errors import UserError
from kdjax.interop import torch as interop
from kdjax.methods import METHODS
from kdjax.networks import InputSpec, Network, NetworkSpec
from kdjax.training import stages
from kdjax.training.building import build
from kdjax.tree import leaves
from tests.models.helpers import random_variables
from tests.tiny_runs import masks as runs
from tests.tiny_runs import networks as _tiny  # noqa: F401 (registers 'tiny')


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return runs.write_arrays(tmp_path_factory.mktemp("data") / "it.npz")


def configured(source: str, **changes):
    return parse(["kdjax", *runs.settings(source, **changes), "--workdir=unused"]).config


def test_methods_that_classify_images_are_refused_with_masks(source):
    """Mutual learning, self-distillation and methods without labels, too."""
    for name in ("cross_entropy", "mcl", "mixskd", "lmcl", "dml", "cs_kd", "moco"):
        config, entry = configs.base(), METHODS[name]
        all_methods.use(config, name)
        config.networks = ("tiny",) * entry.networks
        config.data.source, config.batch_size = source, 8
        config.data.update({need: value.at_least for need, value in entry.data.items()})
        with pytest.raises(UserError) as caught:
            build(config)
        message = str(caught.value)
        assert "\n" not in message and "have masks in place of a class" in message, name
        assert f"method {name!r} does not read them" in message


@pytest.mark.slow
def test_a_student_is_refused_with_masks(source, tmp_path):
    config = configs.base()
    all_methods.use(config, "kd")
    config.networks, config.teacher.network = ("tiny",), "tiny"
    config.data.source, config.batch_size = source, 8
    with pytest.raises(UserError, match="have masks in place of a class"):
        stages.train(config, tmp_path / "run")


def compact(directory) -> Network:
    """A pruned and compacted network of 7 classes, saved to a directory."""
    spec = NetworkSpec.of("tiny", 7, InputSpec((8, 8)))
    variables = random_variables(spec.build())
    for layer in ("conv1", "bn1"):
        for array in variables["params"]["stage2_block0"][layer].values():
            array[..., 3:] = 0
    smaller = compaction.remove_filters(spec.build(), variables)
    spec = NetworkSpec("tiny", 7, InputSpec((8, 8)), compaction=smaller.network.compaction)
    network = Network(spec, smaller.variables)
    networks.save(directory, network, {})
    return network


@pytest.mark.slow
def test_a_compact_backbone_is_trained_and_evaluated(source, tmp_path):
    start = compact(tmp_path / "compact")
    config = configured(source, epochs=1, start__checkpoint=tmp_path / "compact")
    stages.train(config, tmp_path / "run")
    run = kdjax.load_run(tmp_path / "run")
    (row,) = run.rows
    assert row["step"] == 2
    assert kdjax.evaluate(run)["mean/miou"] == pytest.approx(row["mean/miou"])
    trained = networks.load(tmp_path / "run")
    assert trained.spec.compaction == start.spec.compaction
    kernel = trained.variables["params"]["backbone"]["stage2_block0"]["conv1"]["kernel"]
    assert kernel.shape[-1] == 3
    assert (kernel != start.variables["params"]["stage2_block0"]["conv1"]["kernel"]).any()


@pytest.mark.slow
@pytest.mark.parametrize("filters", ["conv", "conv_bn", "coupled"])
def test_pruning_while_segmentation_is_trained(source, tmp_path, filters, call):
    pruned = {
        "pruning__method": "ghfp",
        "pruning__rate": 0.5,
        "pruning__filters": filters,
    }
    flags = runs.settings(source, **pruned)
    status, _, errors = call(*flags, f"--workdir={tmp_path / 'run'}")
    assert (status, errors) == (0, [])
    run = kdjax.load_run(tmp_path / "run")
    assert run.rows[-1]["pruning/filters_pruned"] > 0
    assert run.rows[-1]["mean/miou"] == run.rows[-1]["network_0/miou"]
    state = run.restore("latest").state
    kernels = {
        name: array
        for name, array in leaves(state.params["cohort"]["network_0"]).items()
        if name.endswith("kernel") and array.ndim == 4
    }
    zero = {name: int((~array.any((0, 1, 2))).sum()) for name, array in kernels.items()}
    heads = ("head/", "auxiliary/")
    assert sum(zero.values()) > 0
    assert not any(count for name, count in zero.items() if name.startswith(heads))
    if filters == "conv":  # which is refused for itself
        return
    # A head reads the channels that would be removed.
    shrinking = (*flags, "--config.pruning.shrink_epochs=(1,)", f"--workdir={tmp_path / 'other'}")
    compacting = ("--job=compact", f"--workdir={tmp_path / 'run'}", f"--output={tmp_path / 'it'}")
    for refused in (shrinking, compacting):
        status, _, errors = call(*refused)
        assert status == 2 and len(errors) == 1, errors


@pytest.mark.slow
def test_a_state_dict_becomes_a_run_that_is_exported_again(tmp_path, call):
    """The names are torchvision's; the network segments as it did before it was written."""
    source = runs.write_arrays(tmp_path / "it.npz", size=16)
    spec = NetworkSpec.of("resnet18_deeplab8", runs.CLASSES, InputSpec((16, 16)))
    variables = random_variables(spec.build())
    state = interop.export_state_dict(spec.build(), variables)
    assert {"backbone.layer4.1.conv2.weight", "classifier.0.project.0.weight"} <= state.keys()
    first = tmp_path / "first.safetensors"
    networks.save(tmp_path / "made", Network(spec, variables), {})
    files = f"--torch_file={first}"
    exported = ("--job=export", "--formats=torch")
    assert call(*exported, f"--workdir={tmp_path / 'made'}", files)[::2] == (0, [])
    flags = ("--job=import-torch", files, "--network=resnet18_deeplab8", "--mean=imagenet")
    status, output, errors = call(*flags, f"--workdir={tmp_path / 'imported'}")
    assert (status, errors) == (0, [])
    settings = runs.settings(
        source,
        networks=("resnet18",),
        segmentation__output_stride=8,
        segmentation__rate=12,
        segmentation__width=256,
        segmentation__crop=(16, 16),
        epochs=1,
        optimizer__learning_rate=1e-9,
        optimizer__weight_decay=0.0,
    )
    imported = f"--workdir={tmp_path / 'imported'}"
    status, output, errors = call("--job=evaluate", *settings, imported, "--format=json")
    assert (status, errors) == (0, [])
    metrics = json.loads(output)
    assert 0 <= metrics["network_0/miou"] <= 1
    other = [*settings, "--config.segmentation.rate=6"]
    status, _, errors = call("--job=evaluate", *other, imported)
    assert status == 2 and "has output_stride=8, rate=12, width=256, auxiliary=1" in errors[-1]

    checkpoint = f"--config.start.checkpoint={tmp_path / 'imported'}"
    status, _, errors = call(*settings, checkpoint, f"--workdir={tmp_path / 'run'}")
    assert (status, errors) == (0, [])
    second = tmp_path / "second.safetensors"
    status, _, errors = call(
        *exported, f"--workdir={tmp_path / 'run'}", f"--torch_file={second}", "--checkpoint=latest"
    )
    assert (status, errors) == (0, [])
    before, after = interop.read(first), interop.read(second)
    assert before.keys() == after.keys()
    trained = [key for key in before if key.endswith("weight")]
    for key in trained:  # a learning rate of nothing: the same weights
        np.testing.assert_allclose(after[key], before[key], atol=1e-6)
    statistics = {key: before[key] for key in before if "running" in key}
    again, _ = interop.import_state_dict(spec.build(), after | statistics)
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    logits = jax.jit(lambda v: spec.build().apply(v, images).logits)
    np.testing.assert_allclose(logits(again), logits(variables), rtol=1e-3, atol=1e-4)
