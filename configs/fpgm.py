"""FPGM (He et al., CVPR 2019, 1811.00250): filters near the geometric median are pruned.

    python -m kdjax.main --config configs/fpgm.py --workdir runs/fpgm
    python -m kdjax.main --config configs/fpgm.py:digits --workdir runs/fpgm_digits
    python -m kdjax.main --config configs/fpgm.py:cifar10,sfp_resnet56,0.4,dense --workdir runs/f
    python -m kdjax.main --config configs/fpgm.py --config.pruning.norm_rate=0.1 --workdir runs/mix

Arguments, all optional: data set (cifar10, cifar100, imagenet, digits), network, rate (0.4), and a
trained network to start from, a run's workdir or an imported one, at a tenth of the learning rate.
Soft, as the paper's algorithm 1. The official code masks gradients too, which makes its first
choice final: `--config.pruning.method=hfp --config.pruning.criterion=geometric_median`.

CIFAR-10 at 40 %, FPGM-only and FPGM-mix (`norm_rate=0.1`): ResNet-20 92.20 -> 90.44, 91.99;
ResNet-56 93.59 -> 92.93, 92.89; ResNet-110 93.68 -> 93.73, 93.85. ImageNet at 30 %: ResNet-18
70.28 -> 67.78, 67.81. Ours, cut to fit a CPU:
experiments/results/pruning_cifar100/README.md.
"""

from ml_collections import ConfigDict

from kdjax import config as configs


def get_config(argument: str = "cifar10") -> ConfigDict:
    """The run of `data[,network[,rate[,checkpoint]]]`."""
    return configs.fitted(configs.pruning_run("fpgm", argument)).lock()
