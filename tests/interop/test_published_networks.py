"""Networks of torchvision and timm, with random weights, against kdjax's."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from kdjax import models
from kdjax.errors import UserError
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


def published(library: str, name: str, change=lambda network: None):
    """A network in evaluation mode, with random weights and running statistics.

    Args:
      library, name: of the network.
      change: what is done to it first.
    """
    torch.manual_seed(0)
    if library == "timm":
        timm = pytest.importorskip("timm", reason="timm is not installed")
        network = timm.create_model(name, num_classes=10)
    else:
        torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
        network = torchvision.models.get_model(name, num_classes=10)
    change(network)
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
    same_logits(name.partition(",")[0], published(*source))


def same_logits(name: str, network) -> None:
    """kdjax's network computes what `network` does with its weights, and gives them back."""
    images = np.random.default_rng(0).normal(size=(2, 64, 96, 3)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    state = {key: value.numpy() for key, value in network.state_dict().items()}
    assert interop.count_classes(models.create(name, num_classes=1), state) == 10
    module = models.create(name, num_classes=10)
    variables, report = interop.import_state_dict(module, state)
    golden.assert_close(jax.jit(module.apply)(variables, images).logits, expected, 1e-4)
    back = interop.export_state_dict(module, variables, dialect=report.dialect)
    assert set(back) == set(state)
    network.load_state_dict({key: torch.from_numpy(value) for key, value in back.items()})


def test_vgg_with_one_classifier():
    """As most repositories train torchvision's VGG-16 with BatchNorm on small images."""
    network = published("torchvision", "vgg16_bn", without_hidden_layers)
    same_logits("vgg16_maxpool", network)


def without_hidden_layers(network):
    network.avgpool = torch.nn.AdaptiveAvgPool2d(1)
    network.classifier = torch.nn.Linear(512, 10)


@pytest.mark.slow
@pytest.mark.parametrize(("library", "name"), [("torchvision", "vgg11_bn"), ("timm", "vgg11_bn")])
def test_vgg_with_hidden_layers_is_refused(library, name):
    state = {n: value.numpy() for n, value in published(library, name).state_dict().items()}
    for network in ("vgg11", "vgg16_maxpool"):
        module = models.create(network, num_classes=10)
        with pytest.raises(UserError, match=r"hidden layers .* kdjax does not have; it has vgg11,"):
            interop.import_state_dict(module, state)
        with pytest.raises(UserError, match=r"hidden layers"):
            interop.count_classes(module, state)
