"""The pruning methods on digits: a run of seconds each, with and without BatchNorm's decay."""

TITLE = "Filter pruning on digits, ResNet-8, 40 %, 8 epochs"
NOTE = """
configs/NAME.py:digits cut to 8 of their 30 epochs: 1,437 images of scikit-learn's digits at 16x16,
tested on the other 360. So few are not enough for soft pruning: each epoch of 47 steps makes small
filters large again, and the network relies on them when they are zeroed. BatchNorm decays with the
filters of SRFP and ASRFP but in the rows called official, where it is left alone, as SFP's code
leaves it. Accuracies are those after an epoch's pruning.
"""
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
