"""Mutual contrastive learning with memory banks (Yang et al., AAAI 2022, arXiv 2104.12565).

    python -m kdjax.main --config configs/mcl_imagenet.py --workdir runs/mcl_imagenet
    python -m kdjax.main --config configs/mcl_imagenet.py:digits --workdir runs/digits
    python -m kdjax.main --config configs/mcl_imagenet.py:imagenet,resnet34,4 --workdir runs/x4

Arguments, all optional: data set (imagenet, cifar100, cifar10, digits), network, number of
networks. Four networks share stem and first stages, two on ImageNet and one elsewhere, as in the
official code; other numbers share nothing.

Paper, ImageNet, ResNet-18: baseline 69.76, two networks 70.32, four 70.77.
"""

from ml_collections import ConfigDict

from kdjax import config as configs


def get_config(argument: str = "imagenet") -> ConfigDict:
    """The run of `data[,network[,count]]`."""
    config = configs.memory_run(argument)
    return configs.fitted(config).lock()
