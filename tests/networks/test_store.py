"""Networks by directory, teachers, and the jobs that bring PyTorch's checkpoints in and out."""

from __future__ import annotations

import json
import re
import shutil

import jax
import ml_collections
import numpy as np
import pytest

from kdjax import config as configs
from kdjax import models
from kdjax.errors import UserError
from kdjax.interop import torch as interop
from kdjax.main import main
from kdjax.networks import NAMED, InputSpec, load, save
from kdjax.networks.config_sections import from_config
from kdjax.runs import metrics
from tests import tiny_runs as runs
from tests.models.helpers import random_variables
from tests.networks import saved
from tests.tiny_runs import networks  # noqa: F401 (registers 'tiny')

IMAGES = np.zeros((1, 16, 16, 3), np.float32)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return runs.write_arrays(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="module")
def trained(source, tmp_path_factory):
    """The workdir of a finished run of two networks."""
    workdir = tmp_path_factory.mktemp("runs") / "trained"
    flags = runs.settings(source, epochs=1, networks="('tiny','tiny')", shared_stages=1)
    assert main(["kdjax", *flags, f"--workdir={workdir}"]) == 0
    return workdir


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A state dict of the tiny network, as PyTorch would have it."""
    module = models.create("tiny", num_classes=runs.CLASSES)
    state = interop.export_state_dict(module, random_variables(module, IMAGES))
    path = tmp_path_factory.mktemp("torch") / "tiny.safetensors"
    interop.write(path, state)
    return path


def imported(call, file, directory, *more):
    flags = (f"--torch_file={file}", "--network=tiny", f"--workdir={directory}")
    return call("--job=import-torch", *flags, *more)


def teacher(checkpoint, **changes) -> ml_collections.ConfigDict:
    config = configs.base().teacher
    config.update({"checkpoint": str(checkpoint)} | changes)
    return config


def metadata(directory, step=None) -> dict:
    """Of a checkpoint, the latest one unless another is named."""
    if step is None:
        step = max(int(path.name) for path in (directory / "checkpoints").iterdir())
    return json.loads(saved.metadata_file(directory, step).read_text())["metadata"]


def spec_of(data: dict) -> dict:
    return data["networks"][0]["spec"]


DAMAGES = [
    (lambda data: data.update(networks=[]), "'networks' must be a list"),
    (lambda data: data.update(best=3), "'best' must be a metric's name"),
    (lambda data: data["networks"][0].pop("places"), "a network has no 'places'"),
    (lambda data: data["networks"][0]["places"].update(params="x/y"), "there is no 'x/y' in it"),
    (lambda data: spec_of(data).pop("form"), "network must have name, form"),
    (lambda data: spec_of(data).update(name="tiny_aux"), "name='tiny_aux' must be the name"),
    (lambda data: spec_of(data).update(name=["tiny"]), "must be the name of a registered"),
    (lambda data: spec_of(data).update(name="tinny"), "unknown network 'tinny'"),
    (lambda data: spec_of(data).update(num_classes=True), "num_classes=True must be a positive"),
    (lambda data: spec_of(data).update(form={"name": "byot", "depth": 2}), "must be a registered"),
    (lambda data: spec_of(data).update(form={"name": "hsakd"}), "form with its options"),
    (lambda data: spec_of(data)["input"].update(size=[8, 0]), r"input\.size=\[8, 0\] must be two"),
    (lambda data: spec_of(data)["input"].update(channels=2.5), r"input\.channels=2\.5 must be a"),
    (lambda data: spec_of(data)["input"].update(mean=[0.5] * 3), r"input\.std=None must be finite"),
    (lambda data: spec_of(data)["input"].update(mean=[0.5], std=[1]), "3 numbers, one per channel"),
    (
        lambda data: spec_of(data)["input"].update(mean=[10**400] * 3, std=[1] * 3),
        r"input\.mean=\[10*\.\.\. must be finite",
    ),
    (
        lambda data: spec_of(data)["input"].update(mean=[0.5] * 3, std=[1, 0, 1]),
        r"input\.std=\[1, 0, 1\] must be numbers above 0",
    ),
]


def assert_same(actual, expected) -> None:
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


# Directories


def test_networks_of_a_run_have_what_they_share(trained):
    first, second = load(trained), load(trained, 1, "latest")
    assert (first.spec.full_name, first.spec.num_classes) == ("tiny", runs.CLASSES)
    assert load(trained, "network_1", "latest").spec == second.spec == first.spec
    assert first.spec.input.shape == (8, 8, 3)
    places = [entry["places"] for entry in metadata(trained)["networks"]]
    assert places[0]["params/stem_conv"] == "params/cohort/trunk/stem_conv"
    assert places[1]["params/classifier"] == "params/cohort/network_1/classifier"
    stem = [each.variables["params"]["stem_conv"]["kernel"] for each in (first, second)]
    np.testing.assert_array_equal(*stem)
    heads = [each.variables["params"]["classifier"]["kernel"] for each in (first, second)]
    assert np.abs(heads[0] - heads[1]).max() > 0
    first.module().apply(first.variables, IMAGES)


def test_save_and_load(tmp_path):
    network = saved.network("tiny_aux6", 3)
    save(tmp_path / "there", network, {"file": "x"})
    assert metadata(tmp_path / "there", 0)["source"] == {"file": "x"}
    loaded = load(tmp_path / "there")
    assert loaded.spec == network.spec
    assert_same(loaded.variables, network.variables)
    with pytest.raises(UserError, match="is in use"):
        save(tmp_path / "there", network, {})


@pytest.mark.parametrize("channels", [1, 4, 13])
def test_images_of_any_number_of_channels(tmp_path, channels):
    network = saved.network("tiny", 3, InputSpec((8, 8), channels))
    save(tmp_path / "there", network, {})
    loaded = load(tmp_path / "there")
    assert_same(loaded.variables, network.variables)
    loaded.module().apply(loaded.variables, np.zeros((1, 8, 8, channels), np.float32))


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"checkpoint": ""}, "config.teacher.checkpoint is missing"),
        ({"checkpoint": "/nowhere"}, "/nowhere holds no network"),
        ({"network_index": 2}, "no network 2; there are network_0, network_1"),
        ({"version": "first"}, "config.teacher.version='first' is unknown; use 'best' or"),
    ],
)
def test_teachers_that_are_not_there(trained, changes, pattern):
    with pytest.raises(UserError, match=pattern):
        from_config(teacher(**{"checkpoint": trained} | changes), "config.teacher", runs.CLASSES)


def test_teachers_for_other_classes(trained):
    with pytest.raises(UserError, match=f"tiny has {runs.CLASSES} classes, the data has 100"):
        from_config(teacher(trained), "config.teacher", 100)


def test_damaged_directories(call, file, trained, tmp_path):
    there = tmp_path / "imported"
    assert imported(call, file, there)[0] == 0
    with pytest.raises(UserError, match="does not fit its network tiny: params/classifier"):
        saved.change_metadata(there, lambda data: spec_of(data).update(num_classes=5))
        load(there)
    for change, pattern in DAMAGES:
        damaged = shutil.copytree(there, tmp_path / "damaged")
        saved.change_metadata(damaged, change)
        with pytest.raises(UserError, match=pattern) as error:
            load(damaged)
        assert "\n" not in str(error.value)
        shutil.rmtree(damaged)
    saved.metadata_file(there).write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        load(there)
    copy = shutil.copytree(trained, tmp_path / "copy")
    for payload in copy.glob("checkpoints/*/state/manifest.ocdbt"):
        payload.unlink()
    with pytest.raises(UserError, match="is damaged"):
        load(copy)


# Jobs


def test_import_evaluate_distill_export(call, file, source, tmp_path):
    """A PyTorch network becomes a teacher, and its student a PyTorch network."""
    there, run = tmp_path / "teacher", tmp_path / "run"
    status, output, errors = imported(call, file, there, "--mean=half")
    assert (status, errors) == (0, [])
    assert "fc.weight" in output and f"tiny, {runs.CLASSES} classes" in output
    assert metadata(there, 0)["source"]["file"] == file.name

    status, output, _ = call("--job=evaluate", *runs.settings(source), f"--workdir={there}")
    assert status == 0 and "network_0  top-1" in output
    assert load(there).spec.input.normalization == NAMED["half"]
    files = sorted(path.name for path in there.rglob("*"))
    status, _, errors = call(*runs.settings(source), f"--workdir={there}")
    assert status == 2 and "holds a network that was imported" in errors[0]
    assert sorted(path.name for path in there.rglob("*")) == files
    accuracy = float(output.split("top-1")[1].split("%")[0]) / 100

    flags = runs.settings(source, epochs=2, method="kd", teacher__checkpoint=there)
    assert call(*flags, f"--workdir={run}")[0] == 0
    rows = metrics.read(run / "metrics.jsonl")
    assert rows[-1]["train/distillation"] > 0
    assert abs(rows[-1]["train/teacher/accuracy"] - accuracy) < 0.3
    assert call("--job=evaluate", f"--workdir={run}")[0] == 0

    out = tmp_path / "student.safetensors"
    flags = ("--job=export", "--formats=torch", f"--workdir={run}", f"--torch_file={out}")
    assert call(*flags)[0] == 0
    student = load(run)
    again, _ = interop.import_state_dict(student.module(), interop.read(out))
    assert_same(again, student.variables)
    status, _, errors = call(*flags)
    assert status == 2 and "exists; name another file" in errors[0]


@pytest.mark.parametrize(
    ("flags", "pattern"),
    [
        (["--torch_file=FILE"], "needs --network"),
        (["--network=tiny"], "needs --torch_file"),
        (["--network=tinny", "--torch_file=FILE"], "unknown network 'tinny'.*tiny"),
        (["--network=wrn_16_1", "--torch_file=FILE"], "not a state dict of this network"),
        (["--network=resnet8", "--torch_file=FILE"], "missing: layer3.*shape: layer1.0"),
        (["--network=tiny", "--torch_file=FILE", "--torch_part=backbone"], "no array is named"),
        (["--network=tiny", "--torch_file=no.safetensors"], "does not exist"),
    ],
)
def test_import_refuses_and_writes_nothing(call, file, tmp_path, flags, pattern):
    flags = [flag.replace("FILE", str(file)) for flag in flags]
    status, _, errors = call("--job=import-torch", *flags, f"--workdir={tmp_path / 'there'}")
    assert status == 2 and len(errors) == 1
    assert re.search(pattern, errors[0]), errors[0]
    assert not (tmp_path / "there").exists()


def test_a_network_with_branches_is_evaluated_and_exported_without_them(call, source, tmp_path):
    network = saved.network("tiny_aux", runs.CLASSES)
    save(tmp_path / "there", network, {})
    workdir = f"--workdir={tmp_path / 'there'}"
    status, output, _ = call("--job=evaluate", *runs.settings(source), workdir)
    assert status == 0 and "network_0  top-1" in output
    file = f"--torch_file={tmp_path / 'student.safetensors'}"
    assert call("--job=export", workdir, file, "--torch_part=backbone")[0] == 0
    plain = models.create("tiny", num_classes=runs.CLASSES)
    again, _ = interop.import_state_dict(plain, interop.read(tmp_path / "student.safetensors"))
    assert_same(again, {name: tree["backbone"] for name, tree in network.variables.items()})


def test_evaluating_an_imported_network_needs_data_of_its_classes(call, file, source, tmp_path):
    there = tmp_path / "there"
    imported(call, file, there)
    status, _, errors = call("--job=evaluate", f"--workdir={there}")
    assert status == 2 and "add --config" in errors[0]
    flags = runs.settings(source, data__classes=3)
    status, _, errors = call("--job=evaluate", *flags, f"--workdir={there}")
    assert status == 2 and "has 4 classes" in errors[0]


def test_kd_without_a_teacher_is_refused_before_training(call, source, tmp_path):
    flags = runs.settings(source, method="kd")
    status, _, errors = call(*flags, f"--workdir={tmp_path / 'run'}")
    assert status == 2 and "config.teacher.checkpoint is missing" in errors[0]
    assert not (tmp_path / "run").exists()


def test_networks_with_branches_are_not_trained_by_plain_methods(call, source, tmp_path):
    flags = runs.settings(source, networks="('tiny_aux',)")
    status, _, errors = call(*flags, f"--workdir={tmp_path / 'run'}")
    assert status == 2 and "'tiny_aux' has branches" in errors[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "network", "name"),
    [
        ("mixskd", "tiny", "tiny_mixskd"),
        ("byot", "resnet8", "resnet8_byot"),
        ("dks", "resnet8", "resnet8_dks"),
        ("frskd", "tiny", "tiny"),
    ],
)
def test_networks_that_taught_themselves_are_loaded_by_name(
    source, tmp_path, method, network, name
):
    flags = runs.settings(source, epochs=1, networks=f"('{network}',)", method=method)
    assert main(["kdjax", *flags, f"--workdir={tmp_path}"]) == 0
    found = load(tmp_path, checkpoint="latest")
    assert (found.spec.full_name, found.spec.num_classes) == (name, runs.CLASSES)
    assert found.backbone.spec.name == network
    outputs = found.module().apply(found.variables, np.zeros((1, 8, 8, 3), np.float32))
    assert np.isfinite(jax.tree.leaves(outputs)[0]).all()
