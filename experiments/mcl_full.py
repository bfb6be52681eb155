"""MCL and L-MCL beside independent networks and DML: all of CIFAR-100, ResNet-8."""

import statistics
import sys

from experiments import full_cifar100, sweep
from kdjax.sweep import rows as rows_file
from kdjax.sweep import summaries

TITLE = "MCL and L-MCL on CIFAR-100, ResNet-8, all 50,000 training images, 60 epochs"
SEEDS = (0, 1, 2)
ONCE = ("cross_entropy_resnet20", "dml_resnet20", "mcl_resnet20")
COMMON = full_cifar100.COMMON


def _run(config: str, network: str = "resnet8", count: int = 2) -> tuple[str, ...]:
    return (f"--config=configs/{config}.py:cifar100,{network},{count}",)


RUNS = {
    "cross_entropy": _run("cross_entropy"),
    "mcl": _run("mcl"),
    "dml": _run("dml"),
    "lmcl": _run("lmcl"),
    "mcl_x4": _run("mcl", count=4),
    "mcl_warm_up": (*_run("mcl"), "--config.optimizer.warm_up_epochs=1"),
    "cross_entropy_resnet20": _run("cross_entropy", "resnet20"),
    "mcl_resnet20": _run("mcl", "resnet20"),
    "dml_resnet20": _run("dml", "resnet20"),
}

_HEADS = {"branch1": "branch1/", "branch2": "branch2/", "last": "", "self-ensemble": "ensemble/"}


def table(rows: list[rows_file.Row]) -> list[str]:
    """A row for every label, then what the heads of an L-MCL network are worth, last epoch."""
    lines = sweep.rows_of_labels(sys.modules[__name__], rows)
    last = [run[-1] for run in rows_file.of_label(rows, "lmcl")]
    heads = {
        name: [statistics.mean(row[f"network_{i}/{prefix}top1"] for i in range(2)) for row in last]
        for name, prefix in _HEADS.items()
    }
    lines += ["", f"| L-MCL, heads of a network | {' | '.join(heads)} |", "|" + "---|" * 5]
    cells = " | ".join(summaries.spread(values) for values in heads.values())
    return [*lines, f"| last epoch | {cells} |"]
