"""Networks trained on 80 classes of CIFAR-100, for few-shot episodes on the 20 others.

The episodes of a run, after it: `python -m kdjax.main --config configs/few_shot.py --workdir RUN`.
"""

from experiments import full_cifar100

TITLE = "80 classes of CIFAR-100, ResNet-8, 60 epochs, for episodes on the 20 others"
SEEDS = (0, 1, 2)
COMMON = (*full_cifar100.COMMON, "--config.data.classes=80")
RUNS = {
    name: (f"--config=configs/{name}.py:cifar100,resnet8,2",) for name in ("cross_entropy", "mcl")
}
