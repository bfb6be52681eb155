"""The pruning methods beside the dense network: all of CIFAR-100, ResNet-20, 60 epochs."""

from experiments import full_cifar100

TITLE = "Filter pruning on CIFAR-100, ResNet-20, all 50,000 training images, 60 epochs"
SEEDS = (0, 1, 2)
COMMON = (
    *full_cifar100.COMMON,
    *full_cifar100.steps_at(18, 36, 48, factor=0.2),  # 60, 120 and 160 of the papers' 200
)
_AFTER = "--config.pruning.evaluate_before=False"
_METHODS = ("hfp", "sfp", "asfp", "fpgm", "srfp", "asrfp")
_BASES = ("sfp", "asfp", "srfp", "asrfp")


def _pruned(method: str, percent: int, *more: str) -> tuple[str, ...]:
    config = f"--config=configs/{method}.py:cifar100,sfp_resnet20,{percent / 100}"
    return (config, _AFTER, *more)


def _rate(percent: int) -> dict[str, tuple[str, ...]]:
    return {
        **{f"{method}_{percent}": _pruned(method, percent) for method in _METHODS},
        **{
            f"ghfp_{base}_{percent}": _pruned("ghfp", percent, f"--config.pruning.base={base}")
            for base in _BASES
        },
    }


RUNS = {
    "dense": ("--config=configs/cross_entropy.py:cifar100,sfp_resnet20",),
    **_rate(40),
    **_rate(60),
}
