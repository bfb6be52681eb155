"""Mutual contrastive learning, supervised (Yang et al., AAAI 2022, arXiv 2104.12565), CIFAR-100.

    python -m kdjax.main --config configs/mcl.py --workdir runs/mcl
    python -m kdjax.main --config configs/mcl.py:digits --workdir runs/digits
    python -m kdjax.main --config configs/mcl.py:cifar100,wrn_16_2,4 --workdir runs/mcl_x4

Arguments, all optional: data set (cifar100, cifar10, digits), network, number of networks. Four
networks share stem and first stage, as in the official code; other numbers share nothing.

Paper, CIFAR-100, ResNet-32: baseline 70.91 +- 0.14, two networks 72.96 +- 0.28, four 74.04 +- 0.07.
Ours: experiments/results/mcl_full/README.md (ResNet-8, 60 epochs).
"""

from ml_collections import ConfigDict

from kdjax import config as configs


def get_config(argument: str = "cifar100") -> ConfigDict:
    """The run of `data[,network[,count]]`."""
    config = configs.cifar_run("mcl", argument, count=2)
    config.shared_stages = 1 if len(config.networks) == 4 else 0
    # Paper: 64 classes, two images of each. With ten classes there are more images of each.
    classes = {"tfds:cifar100": 64, "tfds:cifar10": 8, "digits": 10}.get(config.data.source, 64)
    config.data.images_per_class = config.batch_size // classes  # of other data: `fitted`
    return configs.fitted(config).lock()
