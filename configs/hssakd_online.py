"""Online HSSAKD (Yang et al., TNNLS 2022, arXiv 2109.03075): networks that teach each other.

    python -m kdjax.main --config configs/hssakd_online.py --workdir runs/hssakd_online
    python -m kdjax.main --config configs/hssakd_online.py:digits --workdir runs/online_digits
    python -m kdjax.main --config configs/hssakd_online.py:cifar100,wrn_40_1,3 --workdir runs/three
    python -m kdjax.main --config configs/hssakd_online.py:digits,resnet8,resnet14 --workdir runs/a

Arguments, all optional: data set (cifar100, cifar10, imagenet, digits), network, and the number of
networks (two) or the name of a second one with equally many stages. The official code has rotations
only; `--config.hssakd.transformations=color_permutations` and `both` are others. MobileNetV2 and
ShuffleNets take a learning rate of 0.01.

Official repository, CIFAR-100, top-1 alone and of two equal networks:

    WRN-40-2     76.44   82.58 +- 0.21        VGG-13        75.35   80.44 +- 0.05
    WRN-40-1     71.95   76.67 +- 0.41        MobileNetV2   73.51   78.85 +- 0.13
    ResNet-56    73.00   78.16 +- 0.56        ShuffleNetV1  71.74   78.34 +- 0.03
    ResNet-32x4  79.56   84.91 +- 0.19        ShuffleNetV2  72.96   79.98 +- 0.12

ImageNet, ResNet-18: 69.75, 71.49. Ours: none of these; smaller networks and pictures in
experiments/results/hsakd_cifar100/README.md.
"""

from ml_collections import ConfigDict

from kdjax import config as configs
from kdjax.errors import UserError


def get_config(argument: str = "cifar100") -> ConfigDict:
    """The run of `data[,network[,count or second network]]`.

    Raises:
      UserError: an argument that is not of this form, or a count below 2.
    """
    form = "data[,network[,count or second network]]"
    data, network, more = configs.fields(argument, form)
    usual = configs.size_of(data)
    network = network or {"digits": "resnet8", "imagenet": "resnet18"}.get(usual, "wrn_40_2")
    if more and not more.isidentifier() and not (more.isdigit() and int(more) > 1):
        raise UserError(f"--config argument {argument!r} is not of the form {form}; count is 2 on")
    networks = (network, more) if more.isidentifier() else (network,) * int(more or 2)
    return configs.fitted(configs.distillation_run("hssakd_online", data, networks)).lock()
