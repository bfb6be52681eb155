"""ResNets for 32x32 images: the first stage at full resolution, each further one at half of it.

Sources:

- `resnet*`: He et al. 2016, section 4.2, in the variant of RepDistiller, HSAKD and MCL: shortcuts
  that change shape are a 1x1 convolution and BatchNorm (not He's padding with zeros). HSAKD
  models/resnet.py, MCL models/resnet.py and MCL-OKD models/resnet.py agree for equal names but one:
  `resnet110` of MCL and MCL-OKD has bottleneck blocks. It is `resnet110_bottleneck` here.
- `sfp_resnet*`: the same with He's padding; soft filter pruning, models/resnet.py (checked against
  what it computes).
- `option_a_resnet*`: He et al. 2016, section 4.2, as most repositories publish them: half of the
  zeros of a shortcut stand before its channels, half behind them.
- `cifar_resnet*`: the ImageNet widths; HSAKD models/resnetv2.py.
- `selfkd_resnet*`: Self-KD-Lib models/resnet.py. 18: pre-activation, 50: post-activation with bare
  convolutions as shortcuts.
- `mixskd_resnet*`: Self-KD-Lib models/resnet_mixskd.py, without a ReLU after the first BatchNorm.

For 32x32 images and 100 classes (multiply-adds in millions):

    name                     parameters    multiply-adds
    resnet8                      83,892            12.51
    resnet14                    181,108            26.66
    resnet20                    278,324            40.82
    resnet32                    472,756            69.13
    resnet44                    667,188            97.44
    resnet56                    861,620           125.75
    resnet110                 1,736,564           253.16
    resnet110_bottleneck      1,170,868           167.45
    resnet8x4                 1,233,540           177.07
    resnet32x4                7,433,860          1083.04
    sfp_resnet20                275,572            40.56
    sfp_resnet32                470,004            68.87
    sfp_resnet44                664,436            97.18
    sfp_resnet56                858,868           125.49
    sfp_resnet110             1,733,812           252.89
    option_a_resnet20           275,572            40.56
    option_a_resnet32           470,004            68.87
    option_a_resnet44           664,436            97.18
    option_a_resnet56           858,868           125.49
    option_a_resnet110        1,733,812           252.89
    cifar_resnet18           11,220,132           555.47
    cifar_resnet34           21,328,292          1159.45
    cifar_resnet50           23,705,252          1298.01
    selfkd_resnet18          11,217,444           555.47
    selfkd_resnet50          23,697,572          1298.01
    mixskd_resnet18          11,220,132           555.47
    mixskd_resnet50          23,705,252          1298.01
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from kdjax.models.filters import Link
from kdjax.models.registry import register
from kdjax.models.residual_network import ResidualNetwork


class CifarResNet(ResidualNetwork):
    """A residual network with a 3x3 stem at full resolution.

    Attributes:
      stem_relu: whether a ReLU follows the stem's BatchNorm.
    """

    stem_relu: bool = True

    @property
    def stem_stride(self) -> int:
        return 1

    @nn.nowrap
    def stem(self, images: jax.Array, train: bool) -> jax.Array:
        return self.stem_layers(images, 3, 1, train, relu=self.stem_relu)

    @nn.nowrap
    def filter_links(self) -> tuple[Link, ...]:
        stem, *others = super().filter_links()
        return (stem._replace(relu=self.stem_relu), *others)


for _depth in (8, 14, 20, 32, 44, 56, 110):
    register(f"resnet{_depth}", CifarResNet, blocks=((_depth - 2) // 6,) * 3)
for _depth in (8, 32):
    register(
        f"resnet{_depth}x4",
        CifarResNet,
        blocks=((_depth - 2) // 6,) * 3,
        widths=(64, 128, 256),
        stem_width=32,
    )
register("resnet110_bottleneck", CifarResNet, blocks=(12, 12, 12), block="bottleneck")
for _depth in (20, 32, 44, 56, 110):
    _blocks = ((_depth - 2) // 6,) * 3
    register(f"sfp_resnet{_depth}", CifarResNet, blocks=_blocks, shortcut="padding")
    register(f"option_a_resnet{_depth}", CifarResNet, blocks=_blocks, shortcut="centered_padding")

_WIDE: dict[str, Any] = {"widths": (64, 128, 256, 512), "stem_width": 64}
_18: dict[str, Any] = {"blocks": (2, 2, 2, 2), **_WIDE}
_34: dict[str, Any] = {"blocks": (3, 4, 6, 3), **_WIDE}
_50: dict[str, Any] = {"blocks": (3, 4, 6, 3), "block": "bottleneck", **_WIDE}
register("cifar_resnet18", CifarResNet, **_18)
register("cifar_resnet34", CifarResNet, **_34)
register("cifar_resnet50", CifarResNet, **_50)
register("selfkd_resnet18", CifarResNet, block="preactivation", shortcut="convolution", **_18)
register("selfkd_resnet50", CifarResNet, shortcut="convolution", **_50)
register("mixskd_resnet18", CifarResNet, stem_relu=False, **_18)
register("mixskd_resnet50", CifarResNet, stem_relu=False, **_50)
