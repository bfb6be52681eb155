"""The seven pruning methods beside the dense network: CIFAR-100, ResNet-20, small pictures."""

TITLE = "Filter pruning on CIFAR-100 at 16x16, ResNet-20, a tenth of the training images"
SEEDS = (0, 1, 2)
COMMON = (
    "--config.data.train_fraction=0.1",
    "--config.data.image_size=16",
    "--config.batch_size=64",
    "--config.epochs=30",
    "--config.evaluation.every_epochs=3",
    "--config.optimizer.schedule=multistep",
    "--config.optimizer.milestones=(9,18,24)",
    "--config.optimizer.factors=(0.2,0.2,0.2)",
)
ONCE = ("mcl_ghfp_40",)
_AFTER = "--config.pruning.evaluate_before=False"
_METHODS = ("sfp", "asfp", "srfp", "asrfp", "hfp", "ghfp", "fpgm")
RUNS = {
    "dense": ("--config=configs/cross_entropy.py:cifar100,sfp_resnet20",),
    **{
        f"{method}_{percent}": (
            f"--config=configs/{method}.py:cifar100,sfp_resnet20,{percent / 100}",
            _AFTER,
        )
        for percent in (40, 60)
        for method in _METHODS
    },
    "srfp_official_40": (
        "--config=configs/srfp.py:cifar100,sfp_resnet20,0.4",
        _AFTER,
        "--config.pruning.filters=conv",
    ),
    "mcl_ghfp_40": (
        "--config=configs/mcl.py:cifar100,sfp_resnet20,2",
        "--config.pruning.method=ghfp",
        _AFTER,
        "--config.optimizer.warm_up_epochs=1",
    ),
}
