"""Networks exported for deployment, and files that are not what they should be."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from kdjax import config as configs
from kdjax import data, models
from kdjax.errors import UserError
from kdjax.interop import deployed, export, onnx
from kdjax.interop import torch as interop
from kdjax.models import Compaction
from kdjax.networks import InputSpec, Network, NetworkSpec, Normalization, load, save
from kdjax.runs import files
from kdjax.runs import workdir as workdirs
from kdjax.runs.checkpoints import Checkpoints
from tests import tiny_runs as runs
from tests.models.families import FAMILIES
from tests.models.helpers import random_variables
from tests.networks.saved import network as random_network
from tests.networks.saved import run_metadata
from tests.tiny_runs import networks  # noqa: F401 (registers 'tiny')

NORMALIZED = deployed.Images((8, 8, 3), None, None, pixels=False)


@pytest.fixture(scope="module")
def tiny() -> Network:
    return random_network("tiny", runs.CLASSES)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return runs.write_arrays(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="module")
def imported(tiny, tmp_path_factory):
    """The directory of a network without data."""
    directory = tmp_path_factory.mktemp("imported") / "tiny"
    save(directory, tiny, {})
    return directory


@pytest.fixture(scope="module")
def run(tiny, source, tmp_path_factory):
    """The workdir of a run of two networks on `source`, as training leaves it."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    config = configs.base()
    config.data.source, config.networks = source, ("tiny", "tiny")
    workdirs.claim(workdir, config)
    checkpoints = Checkpoints(workdir / "checkpoints", config.evaluation.best)
    twice = {
        name: {"network_0": tree, "network_1": jax.tree.map(lambda x: 0.5 * x, tree)}
        for name, tree in tiny.variables.items()
    }
    model_state = {"batch_stats": twice["batch_stats"]}
    state = {"params": {"cohort": twice["params"]}, "model_state": model_state}
    dataset = data.load(config)
    normalization = Normalization(tuple(dataset.mean.tolist()), tuple(dataset.std.tolist()))
    specs = [NetworkSpec("tiny", runs.CLASSES, InputSpec((8, 8), 3, normalization))] * 2
    checkpoints.save(1, state, {config.evaluation.best: 0.5}, run_metadata(state, *specs))
    checkpoints.close()
    return workdir


def close(actual, expected) -> None:
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()


# What is written


def test_a_run_becomes_functions_of_pixels(call, run, source, tmp_path):
    """Any number of pictures in [0, 1] to what evaluation makes of them; member by member."""
    flags = ("--job=export", f"--workdir={run}", "--network_index=1")
    status, output, errors = call(*flags)
    assert (status, errors) == (0, [])
    assert "images: float32 [batch, 8, 8, 3], pixels in [0, 1]" in output
    assert len(re.findall(r"^(?:stablehlo|onnx|torch) .* difference \d\.\de", output, re.M)) == 3

    names = [f"network_1.{form}" for form in ("json", "onnx", "safetensors", "stablehlo")]
    assert sorted(file.name for file in (run / "export").iterdir()) == names
    for file in (run / "export").iterdir():  # names of source files, of people and machines
        assert not re.search(rb"/[\w./-]+\.py", content := file.read_bytes()), file.name
        assert str(Path.home()).encode() + b"/" not in content
    description = json.loads((run / "export/network_1.json").read_text())
    assert description["input"]["shape"] == ["batch", 8, 8, 3]
    assert description["files"]["stablehlo"]["platforms"] == ["cpu", "cuda", "tpu"]
    assert all(file["largest_relative_difference"] < 1e-5 for file in description["files"].values())

    config = workdirs.read_config(run)
    dataset = data.load(config)
    np.testing.assert_allclose(description["input"]["mean"], dataset.mean)
    images = dataset.test.images[:5]
    trained = load(run, "network_1")
    shown = data.augment.normalize(images, dataset.mean, dataset.std)
    expected = np.asarray(jax.jit(trained.module().apply)(trained.variables, shown).logits)
    exported = jax.export.deserialize(bytearray((run / "export/network_1.stablehlo").read_bytes()))
    session = onnx.Session(run / "export/network_1.onnx")
    for count in (1, 5):
        pixels = images[:count].astype(np.float32) / 255
        close(np.asarray(exported.call(pixels)), expected[:count])
        close(session(pixels), expected[:count])

    status, _, errors = call(*flags, "--formats=torch")
    assert status == 2 and "network_1.safetensors exists; remove it or name another" in errors[0]
    assert call(*flags, "--formats=torch", f"--output={tmp_path / 'deep' / 'er'}")[0] == 0
    again = interop.read(tmp_path / "deep/er/network_1.safetensors")
    state = interop.export_state_dict(trained.module(), trained.variables)
    jax.tree.map(np.testing.assert_array_equal, again, state)


def test_compact_networks(tmp_path, monkeypatch):
    """One with filters that are constants: its channels are picked and put back."""
    kept = {"stem_conv": [1, 0, 1, 1], "stage2_block0/conv1": [1, 0, 0, 1, 1, 1, 0, 1]}
    masks = {name: np.array(mask, bool) for name, mask in kept.items()}
    compaction = Compaction.of(masks, constants=True)
    module = models.create("tiny", num_classes=3).clone(compaction=compaction)
    network = Network(NetworkSpec("tiny", 3, compaction=compaction), random_variables(module))
    assert "folded" in network.variables["params"]["stage2_block0"]["conv2"]
    monkeypatch.setattr(export, "TOLERANCE", 1e-5)
    lines = list(export.write(network, NORMALIZED, tmp_path, "x", ["stablehlo", "onnx"]))
    assert len(lines) == 3
    saved = json.loads((tmp_path / "x.json").read_text())["compaction"]
    assert Compaction.from_dict(saved) == compaction


def test_the_network_inside_one_with_branches_is_exported(call, tmp_path):
    save(tmp_path, random_network("tiny_aux", 3), {})
    status, output, _ = call(
        "--job=export",
        f"--workdir={tmp_path}",
        "--export_input=normalized",
        "--image_size=8",
        "--formats=torch",
    )
    assert status == 0 and output.startswith("tiny, 3 classes")
    plain = models.create("tiny", num_classes=3)
    interop.import_state_dict(plain, interop.read(tmp_path / "export/network_0.safetensors"))


# What the images are


def test_images_are_those_of_the_training(tiny):
    half = Normalization((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    images = deployed.images_of(tiny, half, image_size=16)
    assert images == ((16, 16, 3), *half, True)
    shown = images.normalized(np.full((1, 1, 1, 3), 0.5, np.float32))
    np.testing.assert_allclose(shown.ravel(), [0, 0.5, 1], rtol=1e-6)
    known = random_network("tiny", 2, InputSpec((8, 12), 3, half))
    assert deployed.images_of(known) == ((8, 12, 3), *half, True)
    with pytest.raises(UserError, match="--mean and --std: tiny was trained with mean"):
        deployed.images_of(known, Normalization((0.5,) * 3, (0.5,) * 3))
    gray = random_network("tiny", 2, InputSpec((8, 8), 13))
    assert deployed.images_of(gray, pixels=False).shape == (8, 8, 13)


# What fails


@pytest.mark.parametrize(
    ("flags", "pattern"),
    [
        (["--formats=onnx,tflite"], "--formats=onnx,tflite: choose from stablehlo,onnx,torch"),
        (["--formats="], "--formats=: choose from"),
        ([], "what tiny was trained with is not known: give --mean and --std"),
        (["--mean=0.5"], "--mean without --std"),
        (["--mean=0.5", "--std=0.5"], "takes images of 3 channels, not 1"),
        (["--export_input=normalized", "--image_size=1"], "1x1 pixels are smaller"),
        (["--export_input=raw"], "export_input"),
        (["--export_input=normalized", "--formats=torch", "--output=FILE/x"], "--output=.*written"),
    ],
)
def test_refusals(call, imported, tmp_path, flags, pattern):
    (tmp_path / "file").touch()
    flags = [flag.replace("FILE", str(tmp_path / "file")) for flag in flags]
    status, _, errors = call("--job=export", f"--workdir={imported}", *flags)
    assert status == 2 and len(errors) == 1
    assert re.search(pattern, errors[0]), errors[0]
    assert not (imported / "export").exists()


@pytest.mark.parametrize(
    ("form", "package"),
    [("stablehlo", "flatbuffers"), ("onnx", "onnx"), ("onnx", "onnxruntime")],
)
def test_missing_packages_are_named(monkeypatch, tmp_path, form, package):
    find = export.importlib.util.find_spec
    monkeypatch.setattr(
        export.importlib.util, "find_spec", lambda name: None if name == package else find(name)
    )
    with pytest.raises(UserError, match=rf"{form} needs {package}: pip install 'kdjax\[export\]'"):
        export.files(tmp_path, "x", [form])
    export.files(tmp_path, "x", ["torch"])


def test_a_file_that_computes_something_else_is_removed(tiny, tmp_path, monkeypatch):
    """Beside it, what is as it should be stays."""

    class Wrong(onnx.Session):
        def __call__(self, images):
            logits = super().__call__(images)
            logits[0, 0] += 1e-3 * np.abs(logits).max()
            return logits

    monkeypatch.setattr(onnx, "Session", Wrong)
    lines = export.write(tiny, NORMALIZED, tmp_path, "x", ["onnx", "torch"])
    assert next(lines).startswith("torch")
    assert next(lines).startswith("json")
    with pytest.raises(UserError, match=r"onnx file of tiny: its logits differ .* by 1\.0e-03"):
        next(lines)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.json", "x.safetensors"]
    assert list(json.loads((tmp_path / "x.json").read_text())["files"]) == ["torch"]


def test_two_exports_of_one_name(tiny, tmp_path):
    refused = pytest.raises(UserError, match="another process writes")
    with files.writing(tmp_path / "x.json"), refused:
        list(export.write(tiny, NORMALIZED, tmp_path, "x", ["torch"]))
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("name", ["../x", "a/x", "/x", "..", ""])
def test_names_stay_in_their_directory(name, tmp_path):
    with pytest.raises(UserError, match="is no name of a file in"):
        export.files(tmp_path / "deep", name, ["torch"])


def test_onnx_runtime_writes_nothing(tiny, tmp_path):
    """Imported as it is, it writes an identifier to the user's cache, and a database."""
    list(export.write(tiny, NORMALIZED, tmp_path, "x", ["onnx"]))
    (home := tmp_path / "home").mkdir()
    program = (
        "import sys, numpy; from kdjax.interop import onnx; "
        "print(onnx.Session(sys.argv[1])(numpy.zeros((1, 8, 8, 3), numpy.float32)).shape)"
    )
    environment = os.environ | {"HOME": str(home), "TMPDIR": str(home)}
    environment |= {"XDG_CACHE_HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    command = [sys.executable, "-c", program, str(tmp_path / "x.onnx")]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert output.stdout.strip() == f"(1, {runs.CLASSES})"
    assert list(home.rglob("*")) == []


def test_networks_that_give_no_numbers_are_not_written(tiny, tmp_path):
    variables = jax.tree.map(lambda x: np.full_like(x, np.nan), tiny.variables)
    with pytest.raises(UserError, match="numbers that are not finite"):
        list(export.write(tiny._replace(variables=variables), NORMALIZED, tmp_path, "x", ["torch"]))
    assert list(tmp_path.iterdir()) == []


def test_operations_without_a_counterpart_are_named(tiny, tmp_path, monkeypatch):
    def refuse(*_):
        raise onnx.Unsupported("sort has no counterpart")

    monkeypatch.setattr(onnx, "convert", refuse)
    with pytest.raises(UserError, match="tiny cannot be written as ONNX: sort has no counterpart"):
        list(export.write(tiny, NORMALIZED, tmp_path, "x", ["onnx"]))
    assert list(tmp_path.iterdir()) == []


# All networks


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_families(family, tmp_path, monkeypatch):
    """StableHLO and ONNX for a small network of every family."""
    module, images = FAMILIES[family], NORMALIZED._replace(shape=(32, 32, 3))
    variables = random_variables(module, images.random(1))
    monkeypatch.setattr(Network, "module", lambda _: module)
    monkeypatch.setattr(export, "TOLERANCE", 1e-5)
    network = Network(NetworkSpec(family, module.num_classes), variables)
    list(export.write(network, images, tmp_path, "x", ["stablehlo", "onnx"]))
    pictures = np.random.default_rng(1).normal(size=(1, 32, 32, 3)).astype(np.float32)
    expected = np.asarray(jax.jit(module.apply)(variables, pictures).logits)
    close(onnx.Session(tmp_path / "x.onnx")(pictures), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "densenet_40_12",
        "mobilenetv2",
        "resnet18",
        "resnet110",
        "selfkd_resnet18",
        "sfp_resnet20",
        "shufflenetv1",
        "shufflenetv2_1x",
        "shufflenetv2_05x_imagenet",
        "vgg8",
        "vgg16_maxpool",
        "wrn_16_2",
    ],
)
def test_whole_networks_have_an_onnx_form(name):
    """Their operations and shapes as they are, without running them."""
    module = models.create(name, num_classes=10)
    shape = (module.image_size, module.image_size, 3)
    variables = random_variables(module, np.zeros((1, *shape), np.float32))
    content = onnx.convert(lambda images: module.apply(variables, images).logits, shape)
    assert len(content) > 4 * models.parameter_count(variables["params"])
