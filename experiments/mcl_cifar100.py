"""MCL against independent networks and DML: CIFAR-100, two ResNet-8, a fifth of the images."""

TITLE = "MCL x2 on CIFAR-100, ResNet-8, a fifth of the training images"
SEEDS = (0, 1, 2)
COMMON = (
    "--config.data.train_fraction=0.2",
    "--config.epochs=15",
    "--config.evaluation.every_epochs=5",
)
_WARM_UP = "--config.optimizer.warm_up_epochs=1"
RUNS = {
    "mcl": ("--config=configs/mcl.py:cifar100,resnet8,2",),
    "cross_entropy": ("--config=configs/cross_entropy.py:cifar100,resnet8,2",),
    "dml": ("--config=configs/dml.py:cifar100,resnet8,2",),
    "mcl_warm_up": ("--config=configs/mcl.py:cifar100,resnet8,2", _WARM_UP),
    "cross_entropy_warm_up": ("--config=configs/cross_entropy.py:cifar100,resnet8,2", _WARM_UP),
}
