"""The pruning methods on digits: a run of seconds each, with and without BatchNorm's decay."""

TITLE = "Filter pruning on digits, ResNet-8, 40 %, 8 epochs"
SEEDS = (0, 1, 2)
COMMON = ("--config.epochs=8",)
DATA = False
RUNS = {
    "dense": ("--config=configs/sfp.py:digits", "--config.pruning.method="),
    **{
        method: (f"--config=configs/{method}.py:digits",)
        for method in ("sfp", "asfp", "srfp", "asrfp", "hfp", "ghfp", "fpgm")
    },
    **{
        f"{method}_official": (
            f"--config=configs/{method}.py:digits",
            "--config.pruning.filters=conv",
        )
        for method in ("srfp", "asrfp")
    },
}
