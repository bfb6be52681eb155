"""Random images with classes, masks or objects, written to files for methods to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def settings_of(method, settings, folder: Path) -> dict[str, Any]:
    """Writes data of the kind that a method learns from.

    Args:
      method: its registration.
      settings: `experiments.benchmark.steps.Settings`.
      folder: where data is written.

    Returns:
      Settings of `config` by flattened names: the source, and what goes with images of this size.
    """
    if method.objects is not None:
        return _with_objects(settings, folder)
    if method.masks:
        return _with_masks(settings, folder)
    labels = np.arange(_count(settings)) % settings.classes
    return {"data.source": _write(settings, folder, "labels", labels)}


def _count(settings) -> int:
    """Images of a split: at least four batches, and at least two images of every class."""
    return settings.batch_size * max(4, -(-2 * settings.classes // settings.batch_size))


def _images(settings, random: np.random.Generator) -> np.ndarray:
    return random.integers(0, 256, (_count(settings), settings.side, settings.side, 3), np.uint8)


def _write(settings, folder: Path, kind: str, targets: np.ndarray) -> str:
    """Writes images with 'labels' or 'masks', the same for both splits; returns the source."""
    random, arrays = np.random.default_rng(0), {}
    for split in ("train", "test"):
        arrays[f"{split}_images"] = _images(settings, random)
        arrays[f"{split}_{kind}"] = targets
    np.savez(folder / "images.npz", **arrays)
    return f"arrays:{folder / 'images.npz'}"


def _with_masks(settings, folder: Path) -> dict[str, Any]:
    from kdjax import models

    stride = models.create(settings.network, num_classes=1).stride
    shape = (_count(settings), settings.side, settings.side)
    masks = np.arange(np.prod(shape)).reshape(shape) % settings.classes
    return {
        "data.source": _write(settings, folder, "masks", masks.astype(np.uint8)),
        "data.augmentation": "none",
        "segmentation.crop": (settings.side, settings.side),
        "segmentation.output_stride": min(8, stride),
    }


def _with_objects(settings, folder: Path) -> dict[str, Any]:
    """In YOLO's format: one object in each image, of half its height and width."""
    from PIL import Image

    from kdjax.data.objects.canvas import MULTIPLE

    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for number, pixels in enumerate(_images(settings, random)):
            Image.fromarray(pixels).save(folder / f"images/{split}/{number:05}.png")
            line = f"{number % settings.classes} 0.5 0.5 0.5 0.5\n"
            (folder / f"labels/{split}/{number:05}.txt").write_text(line)
    names = "\n".join(f"class{number}" for number in range(settings.classes))
    (folder / "classes.txt").write_text(names)
    side = -(-settings.side // MULTIPLE) * MULTIPLE
    return {
        "data.source": f"yolo:{folder}",
        "data.augmentation": "none",
        "data.workers": 0,
        "data.canvas": (side, side),
        "detection.min_sizes": (side,),
        "detection.max_size": side,
    }
