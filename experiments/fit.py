"""How well finished runs fit their training images, beside the test images.

    python -m experiments.fit runs/mixskd_cifar100/mixskd_seed0 runs/mixskd_cifar100/mixup_seed0

For every network, branch and self-teacher of every workdir, at its last checkpoint: accuracy (%)
and cross entropy (nats), of the training images as they are stored, without augmentation, and of
the test images.
"""

import argparse
import sys
from pathlib import Path

import kdjax

SPLITS = ("train", "test")


def rows(name: str, found: dict[str, dict[str, float]]):
    """A line for everything that predicts."""
    for metric in found["test"]:
        if not metric.endswith("/top1") or metric == "mean/top1":
            continue
        who = metric.removesuffix("/top1")
        cells = "".join(
            f"{100 * found[split][metric]:>9.2f} {found[split][f'{who}/cross_entropy']:>8.3f}"
            for split in SPLITS
        )
        yield f"{name:<24} {who:<24}{cells}"


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdirs", type=Path, nargs="+")
    workdirs = parser.parse_args(argv).workdirs
    header = "".join(f"{split:>9} {'entropy':>8}" for split in SPLITS)
    print(f"{'run':<24} {'':<24}{header}")
    for workdir in workdirs:
        run = kdjax.load_run(workdir)
        found = {split: kdjax.evaluate(run, split=split, checkpoint="latest") for split in SPLITS}
        for row in rows(workdir.name, found):
            print(row, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
