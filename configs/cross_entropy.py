"""The baseline: networks trained with cross entropy, each for itself.

    python -m kdjax.main --config configs/cross_entropy.py --workdir runs/baseline
    python -m kdjax.main --config configs/cross_entropy.py:digits --workdir runs/baseline_digits
    python -m kdjax.main --config configs/cross_entropy.py:cifar100,wrn_16_2,2 --workdir runs/two

Arguments as in configs/mcl.py; one network by default, more are independent of each other. The
schedule is MCL's. Paper (arXiv 2104.12565), CIFAR-100, ResNet-32: 70.91 +- 0.14.
Ours: experiments/results/mcl_full/README.md (ResNet-8, 60 epochs).
"""

from ml_collections import ConfigDict

from kdjax import config as configs


def get_config(argument: str = "cifar100") -> ConfigDict:
    """The run of `data[,network[,count]]`."""
    config = configs.cifar_run("cross_entropy", argument, count=1)
    return configs.fitted(config).lock()
