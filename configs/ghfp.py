"""GHFP (Cai et al., IJCNN 2021, 2011.03170): from soft to hard pruning, gradually.

    python -m kdjax.main --config configs/ghfp.py --workdir runs/ghfp
    python -m kdjax.main --config configs/ghfp.py:digits --workdir runs/ghfp_digits
    python -m kdjax.main --config configs/ghfp.py:cifar100,sfp_resnet110,0.8 --workdir runs/ghfp_110
    python -m kdjax.main --config configs/ghfp.py --config.pruning.base=asrfp --workdir runs/soft
    python -m kdjax.main --config configs/ghfp.py --config.pruning.filters=conv_bn \\
        --config.pruning.shrink_epochs="(50,100,150)" --workdir runs/ghfp_shrinking

Arguments, all optional: data set (cifar10, cifar100, imagenet, digits), network, rate (0.4), and a
trained network to start from, a run's workdir or an imported one, at a tenth of the learning rate.
A growing part of the pruned filters never returns: none at first, all at the end. With
`config.pruning.filters=conv_bn` BatchNorm is pruned too, and the network may
shrink while it trains.

Tables of the paper: not found. Ours, cut to fit a CPU:
experiments/results/pruning_cifar100/README.md.
"""

from ml_collections import ConfigDict

from kdjax import config as configs


def get_config(argument: str = "cifar10") -> ConfigDict:
    """The run of `data[,network[,rate[,checkpoint]]]`."""
    return configs.fitted(configs.pruning_run("ghfp", argument)).lock()
