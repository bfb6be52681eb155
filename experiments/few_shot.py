"""Networks trained on 80 classes of CIFAR-100, for few-shot episodes on the 20 others.

The episodes of the runs, after them: `python -m experiments.episodes`.
"""

from experiments import full_cifar100

TITLE = "80 classes of CIFAR-100, ResNet-8, 30 epochs, for episodes on the 20 others"
SEEDS = (0, 1, 2)
CLASSES = 80
COMMON = (
    "--config.epochs=30",
    "--config.evaluation.every_epochs=5",
    f"--config.data.classes={CLASSES}",
    *full_cifar100.BFLOAT16,
    *full_cifar100.DATA,
)
RUNS = {
    name: (f"--config=configs/{name}.py:cifar100,resnet8,2",) for name in ("cross_entropy", "mcl")
}
