"""MixSKD beside what it is compared with: CIFAR-100, ResNet-8x4, small pictures."""

TITLE = "MixSKD on CIFAR-100 at 16x16, ResNet-8x4, 1,500 training images"
SEEDS = (0, 1, 2)
ONCE = ("mixskd_script",)
COMMON = (
    "--config.data.train_fraction=0.03",
    "--config.data.image_size=16",
    "--config.batch_size=32",
    "--config.epochs=102",
    "--config.evaluation.every_epochs=17",
    "--config.optimizer.warm_up_epochs=2",
    "--config.optimizer.milestones=(50,75)",
)


def _run(method: str) -> tuple[str, ...]:
    return (f"--config=configs/self_distill.py:{method},cifar100,resnet8x4",)


MIXSKD = ("--config=configs/mixskd.py:cifar100,resnet8x4",)
RUNS = {
    "cross_entropy": _run("cross_entropy"),
    "mixup": _run("mixup"),
    "mixskd": MIXSKD,
    "mixskd_script": (
        *MIXSKD,
        "--config.mixskd.mixed_labels=False",
        "--config.mixskd.train_discriminators=False",
    ),
    "cutmix": _run("cutmix"),
    "label_smoothing": _run("label_smoothing"),
    "byot": _run("byot"),
    "cs_kd": _run("cs_kd"),
}
