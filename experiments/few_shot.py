"""Networks trained on 80 classes of CIFAR-100, for few-shot episodes on the 20 others.

The episodes of a run, after it: `python -m kdjax.main --config configs/few_shot.py --workdir RUN`.
"""

from experiments import full_cifar100

TITLE = "80 classes of CIFAR-100, ResNet-8, 30 epochs, for episodes on the 20 others"
SEEDS = (0, 1, 2)
COMMON = (
    "--config.epochs=30",
    "--config.evaluation.every_epochs=5",
    "--config.data.classes=80",
    *full_cifar100.BFLOAT16,
    *full_cifar100.DATA,
)
RUNS = {
    name: (f"--config=configs/{name}.py:cifar100,resnet8,2",) for name in ("cross_entropy", "mcl")
}
