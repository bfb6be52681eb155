"""Folders of timm's models: what is read of them, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

import kdjax
from kdjax.errors import UserError
from kdjax.interop import export, model_folder
from kdjax.networks import Network, NetworkSpec

CONFIG = {
    "architecture": "resnet18",
    "num_classes": 3,
    "pretrained_cfg": {
        "mean": [0.5, 0.25, 0.5],
        "std": [0.5, 0.5, 0.25],
        "input_size": [3, 64, 64],
        "tag": "a1_in1k",
    },
}


def write(folder, **changes):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    (folder / "model.safetensors").touch()
    return folder


def test_a_folder_says_what_it_holds(tmp_path):
    found = model_folder.read(write(tmp_path, architecture="mobilenetv2_100.ra_in1k"))
    assert found.network == "mobilenetv2_imagenet" and (found.num_classes, found.side) == (3, 64)
    assert found.statistics == ((0.5, 0.25, 0.5), (0.5, 0.5, 0.25))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "vit_base_patch16_224"}, "'vit_base_patch16_224' is not among kdjax's"),
        ({"architecture": None, "model_type": "resnet"}, "has no 'architecture', as timm's have"),
        ({"num_classes": "many"}, "num_classes=many"),
        ({"pretrained_cfg": {}}, "needs 'num_classes', and 'mean', 'std' and 'input_size'"),
        ({"pretrained_cfg": CONFIG["pretrained_cfg"] | {"input_size": [3, 64, 32]}}, "square"),
        ({"pretrained_cfg": CONFIG["pretrained_cfg"] | {"std": [0, 1, 1]}}, "std above 0"),
        ({"pretrained_cfg": CONFIG["pretrained_cfg"] | {"mean": [1], "std": [1]}}, "3 channels"),
    ],
)
def test_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        model_folder.read(write(tmp_path, **changes))


def test_files_that_are_missing_or_damaged(tmp_path):
    with pytest.raises(UserError, match=r"has no config.json; name a folder"):
        model_folder.read(tmp_path)
    folder = write(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no model.safetensors; download it"):
        model_folder.read(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json is damaged"):
        model_folder.read(folder)


@pytest.mark.slow
def test_import_of_a_folder_and_its_mistakes(tmp_path, call):
    folder, workdir = write(tmp_path / "timm"), tmp_path / "teacher"
    spec = NetworkSpec.of("resnet18", 3)
    random = np.random.default_rng(0)
    variables = {name: _filled(tree, random) for name, tree in spec.abstract_variables().items()}
    (folder / "model.safetensors").unlink()
    export.write_state_dict(folder / "model.safetensors", Network(spec, variables))
    flags = ["--job=import-torch", f"--workdir={workdir}", f"--torch_file={folder}"]
    status, _, errors = call(*flags, "--network=resnet18")
    assert status == 2 and "says itself what it holds" in errors[0]
    status, output, errors = call(*flags)
    assert status == 0, errors
    assert "resnet18, 3 classes" in output and "is not known" not in output
    network = kdjax.networks.load(workdir)
    assert network.spec.input.size == (64, 64)
    assert network.spec.input.normalization == ((0.5, 0.25, 0.5), (0.5, 0.5, 0.25))
    kernel = network.variables["params"]["classifier"]["kernel"]
    np.testing.assert_array_equal(kernel, variables["params"]["classifier"]["kernel"])
    write(folder, num_classes=4)
    export_again = [flags[0], f"--workdir={tmp_path / 'other'}", flags[2]]
    status, _, errors = call(*export_again)
    assert status == 2 and "config.json beside it says 4" in errors[0]
    status, _, errors = call(*export_again[:2], f"--torch_file={folder / 'model.safetensors'}")
    assert status == 2 and "needs --network, unless" in errors[0]


def _filled(tree, random):
    if hasattr(tree, "shape"):
        return random.normal(size=tree.shape).astype(np.float32)
    return {name: _filled(child, random) for name, child in tree.items()}
