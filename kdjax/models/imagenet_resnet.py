"""ResNets for large images, as torchvision's: the stride of a bottleneck block is on its 3x3.

Source: He et al. 2016, table 1. Checked against models/resnet_imagenet.py of HSAKD, MCL, MCL-OKD,
L-MCL and Self-KD-Lib and against models/imagenet_resnet.py of soft filter pruning, which agree and
have torchvision's names.

For 224x224 images and 1000 classes (multiply-adds in millions):

    name          parameters    multiply-adds
    resnet18      11,689,512          1814.07
    resnet34      21,797,672          3663.76
    resnet50      25,557,032          4089.18
    resnet101     44,549,160          7801.41
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax

from kdjax.models import layers
from kdjax.models.registry import register
from kdjax.models.residual_network import ResidualNetwork


class ImageNetResNet(ResidualNetwork):
    """A residual network whose stem, a strided 7x7 convolution and max pooling, is at a quarter."""

    blocks: Sequence[int] = (2, 2, 2, 2)
    widths: Sequence[int] = (64, 128, 256, 512)
    stem_width: int = 64

    @property
    def stem_stride(self) -> int:
        return 4

    @property
    def image_size(self) -> int:
        return 224

    @nn.nowrap
    def branch_fields(self, form: str, stage: int) -> dict[str, Any]:
        del stage
        return {"blocks": (1,) * self.num_stages} if form == "lmcl" else {}

    @nn.nowrap
    def stem(self, images: jax.Array, train: bool) -> jax.Array:
        x = self.stem_layers(images, 7, 2, train, relu=True)
        return layers.max_pool(x, size=3, stride=2, padding=1)


register("resnet18", ImageNetResNet)
register("resnet34", ImageNetResNet, blocks=(3, 4, 6, 3))
register("resnet50", ImageNetResNet, blocks=(3, 4, 6, 3), block="bottleneck")
register("resnet101", ImageNetResNet, blocks=(3, 4, 23, 3), block="bottleneck")
