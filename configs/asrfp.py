"""ASRFP (Cai et al., 2020, 2010.09498): SRFP with ASFP's rate.

    python -m kdjax.main --config configs/asrfp.py --workdir runs/asrfp
    python -m kdjax.main --config configs/asrfp.py:digits --workdir runs/asrfp_digits
    python -m kdjax.main --config configs/asrfp.py:cifar100,sfp_resnet56,0.6 --workdir runs/asrfp_56

Arguments, all optional: data set (cifar10, cifar100, imagenet, digits), network, rate (0.4), and a
trained network to start from, a run's workdir or an imported one, at a tenth of the learning rate.
The rate rises as in configs/asfp.py, the factor falls as in configs/srfp.py.

ImageNet, ResNet-34 at 40 %: top-1 and top-5 rise by 1.63 and 0.68 (abstract; over softly pruned
networks of the same rate, it seems). Ours, cut to fit a CPU:
experiments/results/pruning_cifar100/README.md.
"""

from ml_collections import ConfigDict

from kdjax import config as configs


def get_config(argument: str = "cifar10") -> ConfigDict:
    """The run of `data[,network[,rate[,checkpoint]]]`."""
    return configs.fitted(configs.pruning_run("asrfp", argument)).lock()
