"""How often networks of MCL collapse at the start: 10 seeds of 3 epochs, all of CIFAR-100.

The learning rate of 0.1 is that of the first epochs of a long run: it does not fall.
"""

from experiments import full_cifar100

TITLE = "The first 3 epochs of MCL x2 on CIFAR-100, ResNet-8, 10 seeds"
SEEDS = tuple(range(10))
COMMON = (
    "--config.epochs=3",
    "--config.optimizer.schedule=constant",
    *full_cifar100.BFLOAT16,
    *full_cifar100.DATA,
)
_MCL = ("--config=configs/mcl.py:cifar100,resnet8,2",)
RUNS = {
    "mcl": _MCL,
    "mcl_warm_up": (*_MCL, "--config.optimizer.warm_up_epochs=1"),
    "cross_entropy": ("--config=configs/cross_entropy.py:cifar100,resnet8,2",),
}
