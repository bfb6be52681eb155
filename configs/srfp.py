"""SRFP (Cai et al., 2020, 2010.09498): softer pruning; filters decay, and are zeroed at the end.

    python -m kdjax.main --config configs/srfp.py --workdir runs/srfp
    python -m kdjax.main --config configs/srfp.py:digits --workdir runs/srfp_digits
    python -m kdjax.main --config configs/srfp.py:cifar100,sfp_resnet56,0.6 --workdir runs/srfp_56

Arguments, all optional: data set (cifar10, cifar100, imagenet, digits), network, rate (0.4), and a
trained network to start from, a run's workdir or an imported one, at a tenth of the learning rate.
After every epoch the chosen filters, and the scale and bias of the BatchNorm behind them, are
multiplied by a factor that falls from 1 to 0, which it is in the last tenth of training. Only
epochs in which filters are really pruned count as best. Whether the paper's BatchNorm decays is not
known; `--config.pruning.filters=conv` leaves it alone.

Tables of the paper: not found. Ours, cut to fit a CPU:
experiments/results/pruning_cifar100/README.md.
"""

from ml_collections import ConfigDict

from kdjax import config as configs


def get_config(argument: str = "cifar10") -> ConfigDict:
    """The run of `data[,network[,rate[,checkpoint]]]`."""
    return configs.fitted(configs.pruning_run("srfp", argument)).lock()
