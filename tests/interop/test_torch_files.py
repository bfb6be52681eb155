"""PyTorch's own files: read without running code, written so that PyTorch computes the same."""

from __future__ import annotations

import os
import pickle

import jax
import numpy as np
import pytest

from kdjax.errors import UserError
from kdjax.interop import torch as interop
from tests.models.helpers import random_variables, tiny

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

IMAGES = np.random.default_rng(1).normal(size=(4, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    return tiny(num_classes=7)


@pytest.fixture(scope="module")
def variables(network):
    return random_variables(network, IMAGES)


@pytest.fixture(scope="module")
def tensors(network, variables):
    state = interop.export_state_dict(network, variables)
    return {name: torch.from_numpy(value.copy()) for name, value in state.items()}


def assert_imports(file, network, variables) -> None:
    imported, _ = interop.import_state_dict(network, interop.read(file))
    jax.tree.map(np.testing.assert_array_equal, imported, variables)


@pytest.mark.parametrize("key", [None, "net", "state_dict", "model"])
@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_training_scripts(tensors, network, variables, tmp_path, key, zipped):
    """As scripts save them: nested, with the epoch and accuracies as numpy or Python numbers."""
    content = tensors
    if key:
        optimizer = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": []}
        content = {"epoch": 3, "acc": np.float64(71.2), "best": torch.tensor(3.0), key: tensors}
        content["optimizer"] = optimizer
    file = tmp_path / "best.pth.tar"
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    assert_imports(file, network, variables)


def test_data_parallel_modules(tensors, network, variables, tmp_path):
    module = torch.nn.DataParallel(torch_network())
    module.load_state_dict({f"module.{name}": value for name, value in tensors.items()})
    torch.save({"net": module.state_dict()}, tmp_path / "net.pth")
    assert_imports(tmp_path / "net.pth", network, variables)


def test_half_precision_is_widened(tensors, network, variables, tmp_path):
    halves = {n: v.bfloat16() if v.is_floating_point() else v for n, v in tensors.items()}
    torch.save(halves, tmp_path / "half.pt")
    imported, _ = interop.import_state_dict(network, interop.read(tmp_path / "half.pt"))
    expected = tensors["fc.bias"].bfloat16().float().numpy()
    np.testing.assert_array_equal(imported["params"]["classifier"]["bias"], expected)


class Evil:
    """Runs a command when it is unpickled by a reader that runs what it is told."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("plain", [True, False])
def test_code_is_not_run(tensors, tmp_path, plain):
    file, trace = tmp_path / "evil.pth", tmp_path / "trace"
    content = {"net": tensors, "extra": Evil(f"touch {trace}")}
    if plain:
        file.write_bytes(pickle.dumps(content["extra"]))
    else:
        torch.save(content, file)
    with pytest.raises(UserError) as error:
        interop.read(file)
    assert "\n" not in str(error.value)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Evil(f"touch {trace}")))
    assert trace.exists()  # so the attack itself works


def test_whole_models_are_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pth")
    with pytest.raises(
        UserError, match=r"refers to torch\.nn\.modules.*save model\.state_dict\(\)"
    ):
        interop.read(tmp_path / "model.pth")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("zipped", [True, False])
def test_truncated(tensors, tmp_path, share, zipped):
    file = tmp_path / "network.pth"
    torch.save(tensors, file, _use_new_zipfile_serialization=zipped)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match="is damaged") as error:
        interop.read(file)
    assert "\n" not in str(error.value)


def test_no_weights(tmp_path):
    for content, shown in (({"epoch": 3}, "epoch"), ([1, 2], "list"), ({}, "dict")):
        torch.save(content, tmp_path / "nothing.pth")
        with pytest.raises(UserError, match=f"holds no state dict, but.*{shown}"):
            interop.read(tmp_path / "nothing.pth")


class Block(torch.nn.Module):
    """A basic block with the official names."""

    def __init__(self, features: int, width: int, stride: int):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(features, width, 3, stride, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(width)
        self.conv2 = torch.nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(width)
        self.downsample = torch.nn.Sequential()
        if stride > 1 or features != width:
            conv = torch.nn.Conv2d(features, width, 1, stride, bias=False)
            self.downsample = torch.nn.Sequential(conv, torch.nn.BatchNorm2d(width))

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.downsample(x))


class Network(torch.nn.Module):
    """What `tiny(num_classes=7)` is, in PyTorch."""

    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 4, 3, 1, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(4)
        self.layer1 = torch.nn.Sequential(Block(4, 4, 1))
        self.layer2 = torch.nn.Sequential(Block(4, 8, 2))
        self.layer3 = torch.nn.Sequential(Block(8, 8, 2))
        self.fc = torch.nn.Linear(8, 7)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.fc(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def torch_network() -> torch.nn.Module:
    return Network()


def test_pytorch_computes_the_same_from_an_exported_file(network, variables, tmp_path):
    interop.write(tmp_path / "student.pth", interop.export_state_dict(network, variables))
    module = torch_network()
    module.load_state_dict(torch.load(tmp_path / "student.pth", weights_only=True))
    module.eval()
    with torch.no_grad():
        theirs = module(torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy())).numpy()
    ours = jax.jit(network.apply)(variables, IMAGES).logits
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())
