"""L-MCL beside MCL and independent networks: all of CIFAR-100, ResNet-8, 60 epochs."""

from experiments import full_cifar100

TITLE = "L-MCL on CIFAR-100, ResNet-8, all 50,000 training images, 60 epochs"
SEEDS = (0, 1, 2)
COMMON = full_cifar100.COMMON
RUNS = {
    name: (f"--config=configs/{name}.py:cifar100,resnet8,2",)
    for name in ("cross_entropy", "mcl", "lmcl")
}
