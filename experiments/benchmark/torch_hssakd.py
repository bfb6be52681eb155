"""HSSAKD's student step in plain PyTorch: the other side of `hssakd_step.py`.

Written from the papers' equations with what a careful PyTorch user would write: all views in one
batch, the teacher in evaluation mode and without a graph, fused softmax functions, one backward
pass, `torch.optim.SGD`. Module names are kdjax's, so that weights can be filled in by name.
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

ROTATIONS = 4


class Branch(Stages):
    """The feature map of a stage -> joint logits `[B, 4 N]`: the remaining stages, once more.

    After the last stage these are that stage once more, at stride 1.
    """

    def __init__(self, architecture: Architecture, stage: int):
        count = len(architecture.blocks)
        numbers = range(stage + 1, count + 1 + (stage == count))
        stages = [(n, min(n, count) - 1, 2 if n <= count else 1) for n in numbers]
        width = architecture.widths[stage - 1]
        super().__init__(architecture, width, stages, ROTATIONS * architecture.num_classes)

    def forward(self, x):
        return self.run(x)[0]


class Branched(nn.Module):
    """Images `[B, 3, H, W]` -> logits `[B, N]` and joint logits `[B, 4 N]` after every stage."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.backbone = ResNet(architecture)
        self.branches = [f"branch{stage}" for stage in range(1, len(architecture.blocks) + 1)]
        for stage, name in enumerate(self.branches, start=1):
            self.add_module(name, Branch(architecture, stage))

    def forward(self, x):
        logits, _, features = self.backbone(x)
        pairs = zip(self.branches, features, strict=True)
        return logits, [getattr(self, name)(feature) for name, feature in pairs]


def student_loss(
    own: tuple[torch.Tensor, Sequence[torch.Tensor]],
    taught: tuple[torch.Tensor, Sequence[torch.Tensor]],
    labels: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """Cross entropy of the images, divergences from the teacher of all views and all heads."""
    logits, heads = own
    total = F.cross_entropy(logits[::ROTATIONS], labels)
    total = total + distillation(logits, taught[0], temperature)
    for head, teacher_head in zip(heads, taught[1], strict=True):
        total = total + distillation(head, teacher_head, temperature)
    return total


class Trainer:
    """The step: gather, normalize, rotate, teacher, student, loss, gradients, SGD.

    Args:
      teacher, student: their architectures.
      temperature: of the divergences.
      sgd: keyword arguments of `torch.optim.SGD`.
      data: uint8 images `[N, H, H, 3]`, labels `[N]`, and mean and std `[3]`.
      fill: `(name, shape) -> array` of every kernel and bias, in kdjax's layout.
      channels_last: memory format of images and networks.
      compile: whether the networks run through `torch.compile`.
      dtype: 'float32', or 'bfloat16': autocast.
    """

    def __init__(
        self,
        teacher: Architecture,
        student: Architecture,
        temperature: float,
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
        networks = nn.ModuleDict({"teacher": Branched(teacher), "student": Branched(student)})
        fill_weights(networks, fill)
        networks.to(self.device, memory_format=self.format)
        self.teacher = networks["teacher"].eval().requires_grad_(False)
        self.student = networks["student"].train()
        self.run = torch.compile(self.loss) if compile else self.loss
        self.temperature = temperature
        self.optimizer = torch.optim.SGD(self.student.parameters(), **sgd)
        self.images, self.labels, self.mean, self.std = data_on(self.device, data)

    def views(self, indices: torch.Tensor) -> torch.Tensor:
        """Normalized images `[4 B, 3, H, H]`, the rotations of an image next to each other."""
        images = (self.images[indices].float() / 255 - self.mean) / self.std
        turned = torch.stack([torch.rot90(images, k, (2, 3)) for k in range(ROTATIONS)], 1)
        return turned.flatten(0, 1).contiguous(memory_format=self.format)

    def loss(self, views: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of views `[4 B, 3, H, H]` and labels `[B]`."""
        with torch.no_grad():
            taught = self.teacher(views)
        return student_loss(self.student(views), taught, labels, self.temperature)

    def step(self, indices: np.ndarray) -> torch.Tensor:
        """One optimization step with the images `[B]` of these numbers; returns the loss."""
        indices = torch.from_numpy(indices).to(self.device)
        with half(self.device, self.dtype):
            loss = self.run(self.views(indices), self.labels[indices])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def wait(self) -> None:
        """Returns when the device has finished."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
