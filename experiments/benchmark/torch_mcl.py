"""The training step of `configs/mcl.py` in plain PyTorch: the other side of `mcl_step.py`.

Written from the papers' equations with what a careful PyTorch user would write: no Python loop over
images, fused softmax functions, one backward pass, `torch.optim.SGD`. Module names are kdjax's, so
that weights can be filled in by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class Architecture(NamedTuple):
    """A CIFAR ResNet of basic blocks, or a Wide ResNet: of pre-activation blocks."""

    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    stem_width: int
    num_classes: int
    preactivation: bool = False
    stem_relu: bool = True


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, `[B, C, H, W] -> [B, width, H / stride, W / stride]`."""

    def __init__(self, features: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(features, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.reshapes = stride > 1 or features != width
        if self.reshapes:
            self.shortcut_conv = nn.Conv2d(features, width, 1, stride, bias=False)
            self.shortcut_bn = nn.BatchNorm2d(width)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        shortcut = self.shortcut_bn(self.shortcut_conv(x)) if self.reshapes else x
        return F.relu(y + shortcut, inplace=True)


class PreActivationBlock(nn.Module):
    """BatchNorm, ReLU, 3x3, twice; the shortcut is the identity or a 1x1 convolution."""

    def __init__(self, features: int, width: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(features)
        self.conv1 = nn.Conv2d(features, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.reshapes = stride > 1 or features != width
        if self.reshapes:
            self.shortcut_conv = nn.Conv2d(features, width, 1, stride, bias=False)

    def forward(self, x):
        activated = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(activated)), inplace=True))
        return y + (self.shortcut_conv(activated) if self.reshapes else x)


class Stages(nn.Module):
    """Blocks of some stages, BatchNorm after them in pre-activation, and a classifier.

    Args:
      architecture: of the network.
      features: channels of the input.
      stages: number, index into `architecture.blocks` and stride of each stage.
      num_classes: of the classifier.
    """

    def __init__(
        self,
        architecture: Architecture,
        features: int,
        stages: Sequence[tuple[int, int, int]],
        num_classes: int,
    ):
        super().__init__()
        self.order, self.preactivation = [], architecture.preactivation
        block = PreActivationBlock if self.preactivation else BasicBlock
        for number, kind, stage_stride in stages:
            width = architecture.widths[kind]
            for index in range(architecture.blocks[kind]):
                self.order.append(f"stage{number}_block{index}")
                stride = stage_stride if index == 0 else 1
                self.add_module(self.order[-1], block(features, width, stride))
                features = width
        if self.preactivation:
            self.final_bn = nn.BatchNorm2d(features)
        self.classifier = nn.Linear(features, num_classes)

    def run(self, x) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Logits, embedding, and the feature map of every stage."""
        features = {}
        for name in self.order:
            x = getattr(self, name)(x)
            features[name.partition("_")[0]] = x  # of the stage's last block, in the end
        if self.preactivation:
            x = F.relu(self.final_bn(x))
        embedding = x.mean((2, 3))
        return self.classifier(embedding), embedding, list(features.values())


class ResNet(Stages):
    """Images `[B, 3, H, W]` -> logits `[B, N]`, embedding `[B, D]` and feature maps."""

    def __init__(self, architecture: Architecture):
        numbers = range(1, len(architecture.blocks) + 1)
        stages = [(number, number - 1, 1 + (number > 1)) for number in numbers]
        width = architecture.stem_width
        super().__init__(architecture, width, stages, architecture.num_classes)
        self.stem_conv = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.stem_relu = architecture.stem_relu
        if not self.preactivation:
            self.stem_bn = nn.BatchNorm2d(width)

    def forward(self, x):
        x = self.stem_conv(x)
        if not self.preactivation:
            x = self.stem_bn(x)
            x = F.relu(x, inplace=True) if self.stem_relu else x
        return self.run(x)


class ProjectionHead(nn.Module):
    """`[B, D] -> [B, features]` unit vectors."""

    def __init__(self, in_features: int, features: int):
        super().__init__()
        self.hidden = nn.Linear(in_features, features)
        self.output = nn.Linear(features, features)

    def forward(self, x):
        return F.normalize(self.output(F.relu(self.hidden(x))), dim=1)


def distillation(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """`T^2 KL(softmax(teacher / T) || softmax(student / T))`, the mean over rows."""
    log_student = F.log_softmax(student / temperature, 1)
    log_teacher = F.log_softmax(teacher.detach() / temperature, 1)
    divergence = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return temperature**2 * divergence


class Contrast:
    """Positives and others of a batch, and the mean negative log-likelihood of the positives."""

    def __init__(self, labels: torch.Tensor):
        self.own = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        self.positives = ((labels[:, None] == labels[None, :]) & ~self.own).float()
        self.counts = self.positives.sum(1)

    def __call__(self, similarities: torch.Tensor) -> torch.Tensor:
        log_normalizer = similarities.masked_fill(self.own, -torch.inf).logsumexp(1)
        mean = (similarities * self.positives).sum(1) / self.counts
        return (log_normalizer - mean).mean()


def mcl_loss(
    embeddings: Sequence[torch.Tensor],
    labels: torch.Tensor,
    weights: dict[str, float],
    temperature: float,
    kd_temperature: float,
) -> torch.Tensor:
    """The weighted sum of vcl, icl, soft vcl and soft icl of unit vectors `[B, D]`."""
    contrast = Contrast(labels)
    within = [v @ v.T / temperature for v in embeddings]
    total = weights["alpha"] * sum(contrast(each) for each in within)
    for a in range(len(embeddings)):
        for b in range(a):
            across = embeddings[a] @ embeddings[b].T / temperature
            back = across.T
            total = total + weights["beta"] * (contrast(across) + contrast(back))
            for term, first, second in (
                ("gamma", within[a], within[b]),
                ("lam", across, back),
            ):
                both = distillation(first, second, kd_temperature)
                both = both + distillation(second, first, kd_temperature)
                total = total + weights[term] * both
    return total


class Cohort(nn.Module):
    """Networks and heads; the forward pass gives the whole loss."""

    def __init__(self, architecture: Architecture, count: int, mcl: dict):
        super().__init__()
        self.count, self.mcl = count, mcl
        for index in range(count):
            head = ProjectionHead(architecture.widths[-1], mcl["projection_features"])
            self.add_module(f"network_{index}", ResNet(architecture))
            self.add_module(f"head_{index}", head)

    def forward(self, images, labels):
        outputs = [getattr(self, f"network_{i}")(images) for i in range(self.count)]
        embeddings = [getattr(self, f"head_{i}")(each) for i, (_, each, _) in enumerate(outputs)]
        total = sum(F.cross_entropy(logits, labels) for logits, *_ in outputs)
        return total + mcl_loss(
            embeddings, labels, self.mcl, self.mcl["temperature"], self.mcl["kd_temperature"]
        )


def half(device: torch.device, dtype: str):
    """Autocast to bfloat16, or nothing of the kind for float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16")


def device_for_steps() -> torch.device:
    """The GPU if there is one; convolutions and products may use TF32 there, as in XLA."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = True
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def data_on(device: torch.device, data) -> tuple[torch.Tensor, ...]:
    """Images `[N, 3, H, H]`, labels `[N]`, mean and std `[3, 1, 1]`, of `Trainer`'s data."""
    images, labels, mean, std = data
    statistics = (torch.tensor(x, dtype=torch.float32, device=device) for x in (mean, std))
    return (
        torch.tensor(images).permute(0, 3, 1, 2).contiguous().to(device),
        torch.tensor(labels, dtype=torch.long, device=device),
        *(x.view(3, 1, 1) for x in statistics),
    )


class Trainer:
    """The step: gather and normalize a batch, loss, gradients, SGD.

    Args:
      architecture: of every network.
      count: number of networks.
      mcl: the settings `config.mcl`.
      sgd: keyword arguments of `torch.optim.SGD`.
      data: uint8 images `[N, H, W, C]`, labels `[N]`, and mean and std `[C]`.
      fill: `(name, shape) -> array` of every kernel and bias, in kdjax's layout.
      channels_last: memory format of images and network.
      compile: whether to run through `torch.compile`.
      dtype: 'float32', or 'bfloat16': autocast.
    """

    def __init__(
        self,
        architecture: Architecture,
        count: int,
        mcl: dict,
        sgd: dict,
        data: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
        fill: Callable[[str, tuple[int, ...]], np.ndarray],
        *,
        channels_last: bool = False,
        compile: bool = False,
        dtype: str = "float32",
    ):
        self.device, self.dtype = device_for_steps(), dtype
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        cohort = Cohort(architecture, count, mcl)
        fill_weights(cohort, fill)
        cohort = cohort.to(self.device, memory_format=self.format).train()
        self.optimizer = torch.optim.SGD(cohort.parameters(), **sgd)
        self.cohort = torch.compile(cohort) if compile else cohort
        self.images, self.labels, self.mean, self.std = data_on(self.device, data)

    def step(self, indices: np.ndarray) -> torch.Tensor:
        """One optimization step with the images `[B]` of these numbers; returns the loss."""
        indices = torch.from_numpy(indices).to(self.device)
        images = (self.images[indices].float() / 255 - self.mean) / self.std
        images = images.contiguous(memory_format=self.format)
        with half(self.device, self.dtype):
            loss = self.cohort(images, self.labels[indices])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def wait(self) -> None:
        """Returns when the device has finished."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def fill_weights(module: nn.Module, fill) -> None:
    """Fills kernels and biases of convolutions and linear layers; BatchNorm keeps its start."""
    for name, layer in module.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        # kdjax: kernels are HWIO and in x out.
        order = (2, 3, 1, 0) if isinstance(layer, nn.Conv2d) else (1, 0)
        shape = tuple(layer.weight.shape[axis] for axis in order)
        value = fill(f"{name}.kernel".replace(".", "/"), shape).transpose(np.argsort(order))
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(value)))
            if layer.bias is not None:
                bias = fill(f"{name}.bias".replace(".", "/"), tuple(layer.bias.shape))
                layer.bias.copy_(torch.from_numpy(bias))
