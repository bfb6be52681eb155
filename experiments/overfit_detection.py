"""Overfits a detector to a few images by the command line: whether all of detection fits together.

    python -m experiments.overfit_detection --data data/coco256 --workdir runs/overfit

Copies the first training images of a folder in YOLO's format (see `kdjax.data.objects.folders`) to
WORKDIR/data, where they are training and test images; runs this file as a config on them, which is
`configs/detection.py:coco256` with a ResNet-18 of a quarter of its widths and without augmentation;
and draws what is detected to WORKDIR/run/predictions.png. After `--seconds` training is asked to
stop; another call goes on from there. About a second a step on one core.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from ml_collections import ConfigDict

from kdjax.configs import detection
from kdjax.models import ImageNetResNet, register

register("resnet18_quarter", ImageNetResNet, widths=(16, 32, 64, 128), stem_width=16)


def get_config() -> ConfigDict:
    """The run, without its data."""
    config = detection.get_config("coco256,resnet18_quarter")
    with config.unlocked():
        config.epochs = config.evaluation.every_epochs = 160
        config.checkpoint.every_epochs = 20
        config.optimizer.warm_up_epochs, config.optimizer.learning_rate = 5, 2e-3
        config.detection.flip = 0.0
    return config


def copied(source: Path, target: Path, count: int) -> str:
    """Copies the first images and their labels; returns the `config.data.source`."""
    images = sorted((source / "images/train").iterdir())[:count]
    for kind in ("images", "labels"):
        for split in ("train", "val"):
            (target / kind / split).mkdir(parents=True, exist_ok=True)
    for image in images:
        label = source / "labels/train" / f"{image.stem}.txt"
        for split in ("train", "val"):
            shutil.copy(image, target / "images" / split)
            if label.exists():
                shutil.copy(label, target / "labels" / split)
    shutil.copy(source / "classes.txt", target)
    return f"yolo:{target}"


def run(flags: list[str], seconds: float) -> int:
    """Runs the command line; it is asked to stop after some seconds. Returns its status."""
    process = subprocess.Popen([sys.executable, "-m", "kdjax.main", *flags])
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        return process.wait()


def main() -> None:
    """Trains, draws, and prints the average precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=300, help="of this call")
    parser.add_argument("settings", nargs="*", help="further flags, such as --config.seed=1")
    flags = parser.parse_args()
    source = copied(flags.data, flags.workdir / "data", flags.count)
    workdir, config = f"--workdir={flags.workdir / 'run'}", f"--config={__file__}"
    chosen = [config, f"--config.data.source={source}", *flags.settings]
    status = run([*chosen, workdir], flags.seconds)
    rows = (flags.workdir / "run/metrics.jsonl").read_text().splitlines()
    last = json.loads(rows[-1]) if rows else {}
    if status or "mean/ap" not in last:
        sys.exit(f"not finished (status {status}): call again to go on")
    run(["--job=show-predictions", *chosen, workdir, f"--pictures={flags.count}"], flags.seconds)
    measures = ("ap", "ap50", "ap75", "voc07", "voc10")
    print(", ".join(f"{name} {last[f'network_0/{name}']:.4f}" for name in measures))


if __name__ == "__main__":
    main()
