"""Small images with bright boxes of two classes, in a folder in YOLO's format."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASS_NAMES = ("red", "green")
SIZE = (48, 64)  # height, width


def write_folder(root: Path, *, train: int = 8, test: int = 3) -> str:
    """Writes both splits; returns the `config.data.source`. The first images have no objects."""
    random = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("\n".join(CLASS_NAMES))
    for split, count in (("train", train), ("val", test)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels, lines = _drawn(random, index % 3)
            Image.fromarray(pixels).save(root / f"images/{split}/{index:03}.png")
            if lines:
                (root / f"labels/{split}/{index:03}.txt").write_text("\n".join(lines))
    return f"yolo:{root}"


def _drawn(random: np.random.Generator, objects: int) -> tuple[np.ndarray, list[str]]:
    height, width = SIZE
    pixels = random.integers(0, 60, (height, width, 3)).astype(np.uint8)
    lines = []
    for _ in range(objects):
        label = int(random.integers(2))
        h, w = (int(side) for side in random.integers(14, 30, 2))
        top, left = int(random.integers(height - h)), int(random.integers(width - w))
        pixels[top : top + h, left : left + w, label] = 250
        x, y = (left + w / 2) / width, (top + h / 2) / height
        lines.append(f"{label} {x} {y} {w / width} {h / height}")
    return pixels, lines


SETTINGS = {
    "epochs": 2,
    "batch_size": 4,
    "evaluation.batch_size": 2,
    "evaluation.every_epochs": 1,
    "checkpoint.every_epochs": 1,
    "data.canvas": (64, 64),
    "detection.min_sizes": (40, 48),
    "detection.max_size": 64,
    "detection.crop": 0.8,
    "detection.features": 8,
    "detection.hidden": 8,
    "detection.train_candidates": 20,
    "detection.train_proposals": 16,
    "detection.test_candidates": 20,
    "detection.test_proposals": 16,
    "detection.anchor_samples": 24,
    "detection.region_samples": 12,
    "detection.detections": 10,
    "detection.score": 0.01,
}


def settings(source: str, **changes) -> list[str]:
    """Flags of a run of `configs/detection.py` with a tiny network; `a__b=1` is `a.b`."""
    changed = {name.replace("__", "."): value for name, value in changes.items()}
    values = SETTINGS | {"data.source": source} | changed
    flags = [f"--config.{name}={value}" for name, value in values.items()]
    return ["--config=configs/detection.py:coco256,tiny_four", *flags]
