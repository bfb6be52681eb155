"""Linear probes on 200 classes of Tiny-ImageNet, on the frozen networks of `mcl_full`.

`--runs` is the directory of that experiment's workdirs; `--data` has tinyimagenet_train.npz and
tinyimagenet_val.npz, 20 and 8 images of every class.
"""

TITLE = "Linear probes: ResNet-8 of CIFAR-100 on a part of Tiny-ImageNet, 30 epochs"
SEEDS = (0, 1, 2)
COMMON = ("--config.evaluation.every_epochs=5",)
RUNS = {
    f"{label}_probe": (
        "--config=configs/linear_probe.py:arrays:{data}/tinyimagenet_train.npz,"
        f"{{runs}}/{label}_seed{{seed}}",
        "--config.start.version=latest",
        "--config.epochs=30",
        "--config.optimizer.milestones=(15,22,27)",
    )
    for label in ("cross_entropy", "dml", "mcl", "lmcl")
}
