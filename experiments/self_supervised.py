"""MoCo beside MoCo with MCL, by linear probes and nearest neighbors: all of CIFAR-100, ResNet-8."""

from experiments import full_cifar100

TITLE = "MoCo and MCL on CIFAR-100, ResNet-8, all 50,000 training images, 40 epochs"
SEEDS = (0, 1, 2)
COMMON = ("--config.evaluation.every_epochs=10", *full_cifar100.DATA)
_TRAINING = ("--config.epochs=40", *full_cifar100.BFLOAT16)


def _probe(label: str) -> tuple[str, ...]:
    return (
        f"--config=configs/linear_probe.py:cifar100,{{runs}}/{label}_seed{{seed}},contrastive",
        "--config.start.version=latest",
        "--config.epochs=20",
        "--config.optimizer.milestones=(12,16)",
    )


RUNS = {
    "moco": ("--config=configs/moco_mcl.py:cifar100,resnet8,1", *_TRAINING),
    "moco_mcl": ("--config=configs/moco_mcl.py:cifar100,resnet8,2", *_TRAINING),
    "moco_probe": _probe("moco"),
    "moco_mcl_probe": _probe("moco_mcl"),
}
