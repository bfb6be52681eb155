"""float32 against bfloat16 on digits: ResNet-8 by cross entropy and two of them by MCL."""

TITLE = "float32 and bfloat16 on digits, ResNet-8, 8 epochs"
SEEDS = (0, 1, 2)
COMMON = ("--config.epochs=8",)
DATA = False
RUNS = {
    f"{method}_{dtype}": (f"--config=configs/{method}.py:digits", f"--config.dtype={dtype}")
    for method in ("cross_entropy", "mcl")
    for dtype in ("float32", "bfloat16")
}
