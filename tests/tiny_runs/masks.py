"""Small images with masks: squares of the classes' shades on a background."""

from pathlib import Path

import numpy as np

CLASSES = 3


def images_and_masks(count: int, size: int = 12, seed: int = 0):
    """uint8 images `[count, size, size, 3]` and masks `[count, size, size]`, a border ignored."""
    random = np.random.default_rng(seed)
    masks = np.zeros((count, size, size), np.uint8)
    for index in range(count):
        for number in range(1, CLASSES):
            top, left = random.integers(1, size - 5, 2)
            masks[index, top : top + 5, left : left + 5] = number
    noise = random.integers(0, 40, (count, size, size, 3))
    images = (noise + 80 * masks[..., None]).astype(np.uint8)
    masks[:, 0] = 255
    return images, masks


def write_arrays(path: Path, *, train: int = 16, test: int = 5, size: int = 12) -> str:
    """Writes both splits to a file; returns the `config.data.source`."""
    arrays = {"class_names": np.array(["ground", "square", "other"])}
    for seed, (split, count) in enumerate((("train", train), ("test", test))):
        images, masks = images_and_masks(count, size, seed)
        arrays |= {f"{split}_images": images, f"{split}_masks": masks}
    np.savez(path, **arrays)
    return f"arrays:{path}"


def settings(source: str, **changes) -> list[str]:
    """Flags of a run of `configs/segmentation.py` with the tiny network; `a__b=1` is `a.b`."""
    values = {
        "epochs": 2,
        "batch_size": 8,
        "evaluation__batch_size": 4,
        "data__source": source,
        "data__canvas": (),
        "data__ignored": 255,
        "segmentation__crop": (8, 10),
        "segmentation__output_stride": 1,
        "segmentation__rate": 1,
        "segmentation__width": 8,
    } | changes
    flags = [f"--config.{name.replace('__', '.')}={value}" for name, value in values.items()]
    return ["--config=configs/segmentation.py:camvid,tiny", *flags]
