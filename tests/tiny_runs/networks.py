"""The network `tiny`: two stages of one residual block; its stride is 2."""

from kdjax.models import registry
from kdjax.models.cifar_resnet import CifarResNet

registry.register("tiny", CifarResNet, blocks=(1, 1), widths=(4, 8), stem_width=4)
