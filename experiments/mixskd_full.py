"""MixSKD beside what it is compared with, and its script's form: all of CIFAR-100, ResNet-8x4."""

from experiments import full_cifar100

TITLE = "MixSKD on CIFAR-100, ResNet-8x4, all 50,000 training images, 60 epochs"
SEEDS = (0, 1, 2)
COMMON = (
    *full_cifar100.COMMON,
    *full_cifar100.steps_at(30, 45, factor=0.1),  # 100 and 150 of Self-KD-Lib's 200
)
MIXSKD = ("--config=configs/mixskd.py:cifar100,resnet8x4",)
_UNMIXED_LABELS = "--config.mixskd.mixed_labels=False"
_FIXED = "--config.mixskd.train_discriminators=False"
RUNS = {
    **{
        name: (f"--config=configs/self_distill.py:{name},cifar100,resnet8x4",)
        for name in ("cross_entropy", "mixup")
    },
    "mixskd": MIXSKD,
    **{
        name: (f"--config=configs/self_distill.py:{name},cifar100,resnet8x4",)
        for name in ("cutmix", "ps_kd", "byot", "cs_kd")
    },
    "mixskd_unmixed_labels": (*MIXSKD, _UNMIXED_LABELS),
    "mixskd_fixed_discriminators": (*MIXSKD, _FIXED),
    "mixskd_script": (*MIXSKD, _UNMIXED_LABELS, _FIXED),
}
