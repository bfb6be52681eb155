"""SFP (He et al., IJCAI 2018, 1808.06866): soft filter pruning.

After every epoch the filters of smallest norm are zeroed, and all go on learning.

    python -m kdjax.main --config configs/sfp.py --workdir runs/sfp
    python -m kdjax.main --config configs/sfp.py:digits --workdir runs/sfp_digits
    python -m kdjax.main --config configs/sfp.py:cifar10,sfp_resnet56,0.4 --workdir runs/sfp_56
    python -m kdjax.main --config configs/sfp.py:cifar10,sfp_resnet56,0.4,dense --workdir runs/b
    python -m kdjax.main --job=compact --workdir runs/sfp --output runs/sfp_small

Arguments, all optional: data set (cifar10, cifar100, imagenet, digits), network, rate (0.4), and a
trained network to start from, a run's workdir or an imported one, at a tenth of the learning rate.
Masks make nothing faster: `--job=compact` removes the filters. `--config.method=mcl` and the like
prune networks of any method; `--config.pruning.method=sfp` prunes those of any config.

CIFAR-10, ResNet-20 at 30 %: 92.20 -> 90.83, 42.2 % fewer multiply-adds; ResNet-56 at 40 %: 93.59 ->
92.26, 52.6 %; ResNet-110 at 30 %: 93.68 -> 93.38, 40.8 % (FPGM's table). ImageNet, ResNet-18 at
30 %: 70.28 -> 67.10. Ours, cut to fit a CPU:
experiments/results/pruning_cifar100/README.md.
"""

from ml_collections import ConfigDict

from kdjax import config as configs


def get_config(argument: str = "cifar10") -> ConfigDict:
    """The run of `data[,network[,rate[,checkpoint]]]`."""
    return configs.fitted(configs.pruning_run("sfp", argument)).lock()
