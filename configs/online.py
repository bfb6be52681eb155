"""Online distillation among the branches of one network: what MCL-OKD and MCL are compared with.

    python -m kdjax.main --config configs/online.py --workdir runs/one
    python -m kdjax.main --config configs/online.py:okddip --workdir runs/okddip
    python -m kdjax.main --config configs/online.py:cl_ilr,digits --workdir runs/cl_ilr_digits
    python -m kdjax.main --config configs/online.py:one,cifar10,resnet20,3 --workdir runs/one_x3
    python -m kdjax.main --config configs/online.py:mcl_okd,cifar100,vgg16_maxpool,4 \\
        --workdir runs/mcl_okd --config.mcl_okd.negatives=16384

Arguments, all optional: method (one, okddip, cl_ilr, mcl_okd), data set (cifar100, cifar10,
digits), network, number of networks. DML is configs/dml.py. The early stages are shared as in
MCL-OKD's code, the common reference of all four: two of a ResNet's three in one and okddip, one in
cl_ilr (and the next one by pairs) and mcl_okd; three of a VGG's. Schedules are its scripts', too.

MCL-OKD's numbers, CIFAR-100, ResNet-32, four networks, accuracy of one (of the ensemble): baseline
71.09, CL-ILR 74.60 (75.97), ONE 74.26 (75.97), OKDDip 74.24 (76.27), MCL-OKD 75.48 (78.00); best
epoch on the test set. Ours: none of these.
"""

from ml_collections import ConfigDict

from kdjax import config as configs

# Stages that all networks share.
SHARED = {"one": 2, "okddip": 2, "cl_ilr": 1, "mcl_okd": 1}
SHARED_OF_VGG = 3


def get_config(argument: str = "one") -> ConfigDict:
    """The run of `method[,data[,network[,count]]]`."""
    method, _, rest = argument.partition(",")
    method = configs.method_of(method, "online")
    digits = rest.startswith("digits")
    config = configs.cifar_run(method, rest or "cifar100", count=3 if digits else 4)
    vgg = config.networks[0].startswith("vgg")
    config.shared_stages = SHARED_OF_VGG if vgg else SHARED[method]
    if method == "mcl_okd":
        config.optimizer.learning_rate = 0.05
        config.batch_size = 60 if digits else 64
    if digits:
        config.okddip.ramp_up_epochs = 4
    return configs.fitted(config).lock()
