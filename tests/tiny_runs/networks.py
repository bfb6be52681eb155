"""The networks `tiny`, two stages of one residual block at a stride of 2, and `tiny_four`, four
stages at strides of 4 to 32.
"""

from kdjax.models import registry
from kdjax.models.cifar_resnet import CifarResNet
from kdjax.models.imagenet_resnet import ImageNetResNet

registry.register("tiny", CifarResNet, blocks=(1, 1), widths=(4, 8), stem_width=4)
registry.register(
    "tiny_four", ImageNetResNet, blocks=(1, 1, 1, 1), widths=(4, 4, 8, 8), stem_width=4
)
