"""MixSKD's step in plain PyTorch: the other side of `rows.py`.

Written from the paper's equations with what a careful PyTorch user would write: images and their
mixtures in one batch, one backward pass, `torch.optim.SGD`. Module names are kdjax's, so that
weights can be filled in by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from experiments.benchmark.torch_mcl import (
    Architecture,
    ResNet,
    Stages,
    data_on,
    device_for_steps,
    distillation,
    fill_weights,
    half,
)

# The share of an image, and the number of its partner.
Mixture = tuple[float, torch.Tensor]
# Interpolated outputs for images, and outputs for their mixtures.
Pair = tuple[torch.Tensor, torch.Tensor]


class Branch(Stages):
    """The feature map of a stage -> what `Stages.run` gives: the remaining stages, once more."""

    def __init__(self, architecture: Architecture, stage: int):
        numbers = range(stage + 1, len(architecture.blocks) + 1)
        stages = [(number, number - 1, 2) for number in numbers]
        width = architecture.widths[stage - 1]
        super().__init__(architecture, width, stages, architecture.num_classes)

    def forward(self, x):
        return self.run(x)


class SelfTeacher(nn.Module):
    """The last maps `[B, C, H, W]` of all branches and the network -> logits `[B, N]`."""

    def __init__(self, count: int, channels: int, num_classes: int):
        super().__init__()
        self.conv = nn.Conv2d(count * channels, channels, 1, bias=False)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, maps: Sequence[torch.Tensor]):
        return self.classifier(self.conv(torch.cat(maps, 1)).mean((2, 3)))


class SelfTaught(nn.Module):
    """Images `[B, 3, H, W]` -> logits and last maps of branches and network, self-teacher's logits.

    The network's are the last of the lists.
    """

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.backbone = ResNet(architecture)
        count = len(architecture.blocks)
        self.branches = [f"branch{stage}" for stage in range(1, count)]
        for stage, name in enumerate(self.branches, start=1):
            self.add_module(name, Branch(architecture, stage))
        self.self_teacher = SelfTeacher(count, architecture.widths[-1], architecture.num_classes)

    def forward(self, x):
        logits, _, features = self.backbone(x)
        outputs = [
            getattr(self, name)(feature)
            for name, feature in zip(self.branches, features, strict=False)  # none after the last
        ]
        all_logits = [*(branch for branch, _, _ in outputs), logits]
        maps = [*(branch_features[-1] for _, _, branch_features in outputs), features[-1]]
        return all_logits, maps, self.self_teacher(maps)


class Discriminator(nn.Module):
    """Averaged maps `[B, C]` -> logits `[B, 2]` of 'interpolated' and 'mixed'."""

    def __init__(self, channels: int, hidden: int = 128):
        super().__init__()
        self.hidden = nn.Linear(channels, hidden)
        self.output = nn.Linear(hidden, 2)

    def forward(self, x):
        return self.output(F.relu(self.hidden(x)))


def mix(x: torch.Tensor, mixture: Mixture) -> torch.Tensor:
    """`lam x_i + (1 - lam) x_j`."""
    lam, order = mixture
    return lam * x + (1 - lam) * x[order]


def mixed_pair(x: torch.Tensor, mixture: Mixture) -> Pair:
    """Outputs `[2 B, ...]` of images and of their mixtures as a pair."""
    images, mixtures = x.float().chunk(2)
    return mix(images, mixture), mixtures


def discrimination(logits: Pair) -> torch.Tensor:
    """Binary cross entropies of interpolated outputs with (1, 0) and of mixtures' with (0, 1)."""
    targets = [torch.zeros_like(each) for each in logits]
    for column, target in enumerate(targets):
        target[:, column] = 1
    return F.binary_cross_entropy_with_logits(torch.cat(logits).float(), torch.cat(targets).float())


def mixskd_loss(
    logits: Sequence[torch.Tensor],
    maps: Sequence[torch.Tensor],
    teacher: torch.Tensor,
    discriminators: Sequence[nn.Module],
    labels: torch.Tensor,
    mixture: Mixture,
    temperature: float,
) -> torch.Tensor:
    """The sum of the five terms, means over images."""
    lam, order = mixture
    pairs = [mixed_pair(each, mixture) for each in logits]
    taught = mixed_pair(teacher, mixture)
    total = sum(F.cross_entropy(each[: len(labels)].float(), labels) for each in logits)
    for each in (*(mixed for _, mixed in pairs), *taught):
        total = total + lam * F.cross_entropy(each, labels)
        total = total + (1 - lam) * F.cross_entropy(each, labels[order])
    for interpolated, mixed in pairs[:-1]:
        total = total + distillation(interpolated, mixed, temperature)
        total = total + distillation(mixed, interpolated, temperature)
    interpolated, mixed = pairs[-1]
    total = total + distillation(interpolated, taught[1], temperature)
    total = total + distillation(mixed, taught[0], temperature)
    for each, discriminator in zip(maps, discriminators, strict=True):
        total = total + F.mse_loss(*mixed_pair(each, mixture))
        pooled = mixed_pair(each.mean((2, 3)), mixture)
        total = total + discrimination(tuple(map(discriminator, pooled)))
    return total


class Trainer:
    """The step: gather, normalize, mix, forward, five terms, gradients, SGD.

    Args:
      architecture: of the network.
      temperature: of the divergences.
      alpha: of the distribution of lambda.
      sgd: keyword arguments of `torch.optim.SGD`.
      data: uint8 images `[N, H, H, 3]`, labels `[N]`, and mean and std `[3]`.
      fill: `(name, shape) -> array` of every kernel and bias, in kdjax's layout.
      mixtures: lambda and partners `[B]` of the first steps; all others draw them.
      channels_last: memory format of images and networks.
      dtype: 'float32', or 'bfloat16': autocast.
    """

    def __init__(
        self,
        architecture: Architecture,
        temperature: float,
        alpha: float,
        sgd: dict,
        data: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
        fill: Callable[[str, tuple[int, ...]], np.ndarray],
        *,
        mixtures: Sequence[tuple[float, np.ndarray]] = (),
        channels_last: bool = False,
        dtype: str = "float32",
    ):
        self.device, self.dtype = device_for_steps(), dtype
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.temperature, self.alpha = temperature, alpha
        self.random, self.mixtures = np.random.default_rng(0), iter(mixtures)
        network = SelfTaught(architecture)
        names = (*network.branches, "backbone")
        discriminators = nn.ModuleDict({n: Discriminator(architecture.widths[-1]) for n in names})
        for module in (network, discriminators):  # kdjax has them in two trees
            fill_weights(nn.ModuleDict({"network_0": module}), fill)
        network.to(self.device, memory_format=self.format)
        self.network, self.discriminators = network.train(), discriminators.to(self.device)
        parameters = (*self.network.parameters(), *self.discriminators.parameters())
        self.optimizer = torch.optim.SGD(parameters, **sgd)
        self.images, self.labels, self.mean, self.std = data_on(self.device, data)

    def mixture(self, count: int) -> Mixture:
        """Of `count` images: lambda, and a permutation."""
        given = next(self.mixtures, None)
        if given is not None:
            return given[0], torch.from_numpy(given[1]).to(self.device)
        order = torch.randperm(count, device=self.device)
        return self.random.beta(self.alpha, self.alpha), order

    def step(self, indices: np.ndarray) -> torch.Tensor:
        """One optimization step with the images `[B]` of these numbers; returns the loss."""
        indices = torch.from_numpy(indices).to(self.device)
        mixture = self.mixture(len(indices))
        images = (self.images[indices].float() / 255 - self.mean) / self.std
        images = torch.cat([images, mix(images, mixture)]).contiguous(memory_format=self.format)
        labels = self.labels[indices]
        with half(self.device, self.dtype):
            logits, maps, teacher = self.network(images)
            discriminators = list(self.discriminators.values())
            loss = mixskd_loss(
                logits, maps, teacher, discriminators, labels, mixture, self.temperature
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def wait(self) -> None:
        """Returns when the device has finished."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
