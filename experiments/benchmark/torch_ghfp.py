"""GHFP's step in plain PyTorch: the other side of `rows.py`.

Cross entropy and `torch.optim.SGD`; after every update the kernels are multiplied by masks of their
filters, as hard-pruned filters stay zero. Module names are kdjax's, so that weights can be filled
in by name.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from experiments.benchmark.torch_mcl import (
    Architecture,
    ResNet,
    data_on,
    device_for_steps,
    fill_weights,
    half,
)


class Trainer:
    """The step: gather, normalize, forward, cross entropy, gradients, SGD, masks.

    Args:
      architecture: of the network.
      sgd: keyword arguments of `torch.optim.SGD`.
      data: uint8 images `[N, H, H, 3]`, labels `[N]`, and mean and std `[3]`.
      fill: `(name, shape) -> array` of every kernel and bias, in kdjax's layout.
      channels_last: memory format of images and networks.
      dtype: 'float32', or 'bfloat16': autocast.
    """

    def __init__(
        self,
        architecture: Architecture,
        sgd: dict,
        data: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
        fill: Callable[[str, tuple[int, ...]], np.ndarray],
        *,
        channels_last: bool = False,
        dtype: str = "float32",
    ):
        self.device, self.dtype = device_for_steps(), dtype
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        networks = nn.ModuleDict({"network_0": ResNet(architecture)})
        fill_weights(networks, fill)
        networks.to(self.device, memory_format=self.format)
        self.network = networks["network_0"].train()
        self.optimizer = torch.optim.SGD(self.network.parameters(), **sgd)
        convolutions = (m for m in self.network.modules() if isinstance(m, nn.Conv2d))
        self.masked = [(m.weight, torch.ones_like(m.weight[:, :1, :1, :1])) for m in convolutions]
        self.images, self.labels, self.mean, self.std = data_on(self.device, data)

    def step(self, indices: np.ndarray) -> torch.Tensor:
        """One optimization step with the images `[B]` of these numbers; returns the loss."""
        indices = torch.from_numpy(indices).to(self.device)
        images = (self.images[indices].float() / 255 - self.mean) / self.std
        with half(self.device, self.dtype):
            logits, _, _ = self.network(images.contiguous(memory_format=self.format))
            loss = F.cross_entropy(logits.float(), self.labels[indices])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for kernel, mask in self.masked:
                kernel.mul_(mask)
        return loss.detach()

    def wait(self) -> None:
        """Returns when the device has finished."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
