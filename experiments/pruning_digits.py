"""The pruning methods on digits: a run of seconds each."""

TITLE = "Filter pruning on digits, ResNet-8, 40 %"
NOTE = """
configs/NAME.py:digits as they stand: 1,437 images of scikit-learn's digits at 16x16, tested on the
other 360; 8 epochs. BatchNorm decays with the filters of SRFP and ASRFP but in the rows called
official, where it is left alone, as SFP's code leaves it. Accuracies are those after an epoch's
pruning.
"""
SEEDS = (0, 1, 2)
COMMON = ()
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
            "--config.pruning.filters=official",
        )
        for method in ("srfp", "asrfp")
    },
}
