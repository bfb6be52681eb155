"""Layer-wise mutual contrastive learning: L-MCL (Yang et al., TPAMI 2023), CIFAR-100.

    python -m kdjax.main --config configs/lmcl.py --workdir runs/lmcl
    python -m kdjax.main --config configs/lmcl.py:digits --workdir runs/lmcl_digits
    python -m kdjax.main --config configs/lmcl.py:cifar10,resnet20 --workdir runs/lmcl_cifar10
    python -m kdjax.main --config configs/lmcl.py:cifar100,wrn_16_2,wrn_40_2 --workdir runs/pair

Arguments, all optional: data set (cifar100, cifar10, digits), network, and the number of networks
(two) or the name of a second one. Networks share nothing. Every 50 steps (on digits 10) the meta
network learns through three steps of the networks; a CPU compiles them for a minute and more.

Official repository, CIFAR-100, top-1 alone and of two equal networks:

    ResNet-32   70.91   75.82        WRN-16-2   72.55   77.31
    ResNet-56   73.15   77.51        WRN-40-2   76.89   80.96
    ResNet-110  75.29   79.48        HCGNet-A1  77.42   81.66

ResNet-32 and ResNet-110 together: 75.82, 79.71. Its numbers are the best epoch's of the best stage,
on the test set. Ours: experiments/results/mcl_full/README.md (ResNet-8, 60 epochs).
"""

from ml_collections import ConfigDict

from kdjax import config as configs


def get_config(argument: str = "cifar100") -> ConfigDict:
    """The run of `data[,network[,count or second network]]`."""
    data, network, more = configs.fields(argument, "data[,network[,count or second network]]")
    pair = bool(more) and not more.isdigit()
    plain = f"{data},{network}" if pair else argument
    config = configs.cifar_run("lmcl", plain, count=2)
    if pair:
        config.networks = (config.networks[0], more)
    # As in configs/mcl.py; with ten classes there are more images of each.
    classes = {"tfds:cifar100": 64, "tfds:cifar10": 8, "digits": 10}.get(config.data.source, 64)
    config.data.images_per_class = config.batch_size // classes  # of other data: `fitted`
    if data == "digits":
        config.lmcl.meta_interval = 10
    return configs.fitted(config).lock()
