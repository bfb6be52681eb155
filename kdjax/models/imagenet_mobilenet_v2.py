"""MobileNetV2 for large images.

Source: Sandler et al. 2018, table 2; checked against torchvision's `mobilenet_v2` and timm's
`mobilenetv2_100`, which compute the same. Dropout before the classifier is left out.

For 224x224 images and 1000 classes (multiply-adds in millions):

    name                    parameters    multiply-adds
    mobilenetv2_imagenet     3,504,872           300.77
"""

from __future__ import annotations

from typing import ClassVar

import flax.linen as nn

from kdjax.models.mobilenet_v2 import STAGES, Group, MobileNetV2
from kdjax.models.registry import register

# The second group halves the resolution.
_IMAGENET_STAGES = ((Group(16, 1, 1), Group(24, 2, 2)), *STAGES[1:])


def _divisible(width: float) -> int:
    """The nearest multiple of 8, but never less than nine tenths of `width`."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * width else rounded + 8


class ImageNetMobileNetV2(MobileNetV2):
    """Four stages at a quarter, an eighth, a sixteenth and a thirty-second of the resolution.

    The first convolution and the second group of blocks halve the resolution, activations are
    ReLU6, the first block has no expansion, and widths are multiples of 8.
    """

    stages: ClassVar = _IMAGENET_STAGES
    stem_stride: ClassVar[int] = 2
    always_expands: ClassVar[bool] = False
    activation: ClassVar = staticmethod(nn.relu6)

    @property
    def stride(self) -> int:
        return 32

    @property
    def image_size(self) -> int:
        return 224

    @nn.nowrap
    def _channels(self, width: int) -> int:
        return _divisible(width * self.width)


register("mobilenetv2_imagenet", ImageNetMobileNetV2)
