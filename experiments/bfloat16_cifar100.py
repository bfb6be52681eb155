"""float32 against bfloat16 on all of CIFAR-100: ResNet-8, two by cross entropy and two by MCL."""

from experiments import full_cifar100

TITLE = "float32 and bfloat16 on CIFAR-100, ResNet-8, all 50,000 training images, 20 epochs"
SEEDS = (0, 1, 2)
COMMON = (
    "--config.epochs=20",
    "--config.evaluation.every_epochs=5",
    *full_cifar100.DATA,
)
RUNS = {
    f"{method}_{dtype}": (
        f"--config=configs/{method}.py:cifar100,resnet8,2",
        f"--config.dtype={dtype}",
    )
    for method in ("cross_entropy", "mcl")
    for dtype in ("float32", "bfloat16")
}
