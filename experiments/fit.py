"""How well finished runs fit their training images, beside the test images.

    python -m experiments.fit runs/mixskd_cifar100/mixskd_seed0 runs/mixskd_cifar100/mixup_seed0

For every network, branch and self-teacher of every workdir, at its last checkpoint: accuracy (%)
and cross entropy (nats), of the training images as they are stored, without augmentation, and of
the test images.
"""

import sys
from pathlib import Path

from kdjax.runs import workdir as workdirs
from kdjax.training import evaluation
from kdjax.training.program import Run
from kdjax.training.step import TrainState

SPLITS = ("train", "test")


def measured(run: Run, state: TrainState) -> dict[str, dict[str, float]]:
    """What `Run.evaluate` finds, of each split."""
    found = {}
    on_devices = run.parallel.replicate(state)
    dataset = run.feed.dataset
    for split in SPLITS:
        run.feed.dataset = dataset._replace(test=getattr(dataset, split))
        found[split] = run.evaluate(on_devices, run.feed.constants("test"))
    run.feed.dataset = dataset
    return found


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


def main(workdirs_given: list[str]) -> None:
    if not workdirs_given:
        raise SystemExit(__doc__)
    header = "".join(f"{split:>9} {'entropy':>8}" for split in SPLITS)
    print(f"{'run':<24} {'':<24}{header}")
    for workdir in map(Path, workdirs_given):
        config = workdirs.read_config(workdir)
        run, _, state = evaluation.restored(config, workdir, "latest")
        for row in rows(workdir.name, measured(run, state)):
            print(row, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
