"""HFP: hard filter pruning; filters are chosen before training and never return.

    python -m kdjax.main --config configs/hfp.py --workdir runs/hfp
    python -m kdjax.main --config configs/hfp.py:digits --workdir runs/hfp_digits
    python -m kdjax.main --config configs/hfp.py:cifar100,sfp_resnet56,0.6 --workdir runs/hfp_56
    python -m kdjax.main --config configs/hfp.py --config.pruning.filters=conv_bn \\
        --config.pruning.shrink_epochs="(1,)" --workdir runs/hfp_shrinking

Arguments, all optional: data set (cifar10, cifar100, imagenet, digits), network, rate (0.4), and a
trained network to start from, a run's workdir or an imported one, at a tenth of the learning rate.
The baseline of GHFP (2011.03170). With `config.pruning.filters=conv_bn` BatchNorm is pruned too,
and the network may shrink while it trains. Ours, cut to fit a CPU:
experiments/results/pruning_cifar100/README.md.
"""

from ml_collections import ConfigDict

from kdjax import config as configs


def get_config(argument: str = "cifar10") -> ConfigDict:
    """The run of `data[,network[,rate[,checkpoint]]]`."""
    return configs.fitted(configs.pruning_run("hfp", argument)).lock()
