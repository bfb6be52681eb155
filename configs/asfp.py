"""ASFP (He et al., IEEE T-Cybernetics 2019, 1808.07471): SFP with a rate that rises.

    python -m kdjax.main --config configs/asfp.py --workdir runs/asfp
    python -m kdjax.main --config configs/asfp.py:digits --workdir runs/asfp_digits
    python -m kdjax.main --config configs/asfp.py:cifar100,sfp_resnet56,0.6 --workdir runs/asfp_56

Arguments, all optional: data set (cifar10, cifar100, imagenet, digits), network, rate (0.4), and a
trained network to start from, a run's workdir or an imported one, at a tenth of the learning rate.
The rate is 0 at the start, three quarters of the final one after an eighth of training, and the
final one in its last twentieth (`config.pruning.rate_from`).

ImageNet, ResNet-50, over 40 % fewer FLOPs: top-5 falls by 0.14 (abstract). Ours, cut to fit a CPU:
experiments/results/pruning_cifar100/README.md.
"""

from ml_collections import ConfigDict

from kdjax import config as configs


def get_config(argument: str = "cifar10") -> ConfigDict:
    """The run of `data[,network[,rate[,checkpoint]]]`."""
    return configs.fitted(configs.pruning_run("asfp", argument)).lock()
