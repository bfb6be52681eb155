"""Segmentation of CamVid by DeepLabV3, from backbones that were trained in several ways.

`--data` is the directory that has cifar100_{train,test}.npz and camvid_{train,val,test}.npz. The
epoch is chosen by the mIoU of the 101 validation images; its mIoU on the 233 test images counts.
"""

from kdjax.sweep import rows as rows_file
from kdjax.sweep import summaries

TITLE = "CamVid at 90x120 by DeepLabV3 on ResNet-20, from backbones trained on CIFAR-100"
SEEDS = (0, 1, 2)
METRIC = "miou"
COMMON = ()
_BACKBONES = {
    "cross_entropy": "configs/cross_entropy.py:cifar100,resnet20",
    "mixup": "configs/self_distill.py:mixup,cifar100,resnet20",
    "mixskd": "configs/mixskd.py:cifar100,resnet20",
}
_TRAINING = (
    "--config.data.source=arrays:{data}/cifar100_train.npz",
    "--config.data.train_fraction=0.4",
    "--config.epochs=12",
    "--config.optimizer.schedule=cosine",
    "--config.evaluation.every_epochs=3",
)
_SEGMENTATION = "--config=configs/segmentation.py:camvid,resnet20"
_IMAGES = "--config.data.source=arrays:{data}/camvid_train.npz"
ONCE = tuple(f"{name}_backbone" for name in _BACKBONES)
STARTS = ("random", *_BACKBONES)
RUNS = {
    **{f"{name}_backbone": (f"--config={file}", *_TRAINING) for name, file in _BACKBONES.items()},
    "random": (_SEGMENTATION, _IMAGES),
    **{name: (f"{_SEGMENTATION},{{runs}}/{name}_backbone_seed0", _IMAGES) for name in _BACKBONES},
}
TEST = {label: {"data.test_split": "test"} for label in STARTS}


def table(rows) -> list[str]:
    """A row for every backbone, then the test images' IoU of every class."""
    lines = [
        "| backbone | its CIFAR-100 top-1 | seeds | mIoU, val, best epoch | mIoU, test |",
        "|" + "---|" * 5,
    ]
    runs = {label: rows_file.of_label(rows, label) for label in STARTS}
    for label in STARTS:
        trained = rows_file.of_label(rows, f"{label}_backbone")
        _, best, _ = summaries.summary(runs[label], METRIC)
        test = summaries.spread(summaries.tested(runs[label], f"mean/{METRIC}"))
        _, top1, _ = summaries.summary(trained)
        lines.append(f"| {label} | {top1} | {len(runs[label])} | {best} | {test} |")
    prefix = "test/network_0/iou/"
    classes = dict.fromkeys(
        name.removeprefix(prefix)
        for row in rows
        for name, value in row.items()
        if name.startswith(prefix) and value
    )
    lines += ["", f"| IoU, test | {' | '.join(STARTS)} |", "|" + "---|" * (1 + len(STARTS))]
    for name in classes:
        cells = (
            summaries.spread(summaries.tested(runs[label], f"network_0/iou/{name}"))
            for label in STARTS
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines
