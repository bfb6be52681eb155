"""Networks of torchvision and timm, with random weights, against kdjax's."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from kdjax import models
from kdjax.interop import torch as interop
from tests import golden

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

NETWORKS = {
    "resnet18": ("torchvision", "resnet18"),
    "resnet50": ("timm", "resnet50"),
    "mobilenetv2_imagenet": ("torchvision", "mobilenet_v2"),
    "shufflenetv2_05x_imagenet": ("torchvision", "shufflenet_v2_x0_5"),
}
SLOW = {
    "resnet18, timm": ("timm", "resnet18"),
    "resnet34": ("torchvision", "resnet34"),
    "resnet50, torchvision": ("torchvision", "resnet50"),
    "resnet101": ("torchvision", "resnet101"),
    "mobilenetv2_imagenet, timm": ("timm", "mobilenetv2_100"),
    "shufflenetv2_1x_imagenet": ("torchvision", "shufflenet_v2_x1_0"),
    "shufflenetv2_15x_imagenet": ("torchvision", "shufflenet_v2_x1_5"),
    "shufflenetv2_2x_torchvision": ("torchvision", "shufflenet_v2_x2_0"),
}


def published(library: str, name: str):
    """A network in evaluation mode, with random weights and running statistics."""
    torch.manual_seed(0)
    if library == "timm":
        timm = pytest.importorskip("timm", reason="timm is not installed")
        network = timm.create_model(name, num_classes=10)
    else:
        torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
        network = torchvision.models.get_model(name, num_classes=10)
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(std=0.1)
    return network.eval()


@pytest.mark.parametrize(
    ("name", "source"),
    [
        *(pytest.param(*item, id=item[0]) for item in NETWORKS.items()),
        *(pytest.param(*item, id=item[0], marks=pytest.mark.slow) for item in SLOW.items()),
    ],
)
def test_logits_and_names(name, source):
    network = published(*source)
    images = np.random.default_rng(0).normal(size=(2, 64, 96, 3)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    state = {key: value.numpy() for key, value in network.state_dict().items()}
    module = models.create(name.partition(",")[0], num_classes=1)
    assert interop.count_classes(module, state) == 10
    module = models.create(name.partition(",")[0], num_classes=10)
    variables, report = interop.import_state_dict(module, state)
    golden.assert_close(jax.jit(module.apply)(variables, images).logits, expected, 1e-4)
    back = interop.export_state_dict(module, variables, dialect=report.dialect)
    assert set(back) == set(state)
    network.load_state_dict({key: torch.from_numpy(value) for key, value in back.items()})
