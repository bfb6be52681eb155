"""Small images with masks: squares of the classes' shades on a background."""

from pathlib import Path

import numpy as np
from PIL import Image

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


def write(path: Path, pixels: np.ndarray, palette: bool = False) -> None:
    """Writes an image file, gray, of a palette or RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette([value for color in range(256) for value in (color, 255 - color, 7)])
    image.save(path)


def write_layout(root: Path, layout: str, size: int = 12, count: int = 2) -> np.ndarray:
    """`count` images of each split in a layout, every second one lower; returns a mask's values."""
    random = np.random.default_rng(0)
    for train in (True, False):
        names = []
        for number in range(count):
            shape, name = (
                (size - 3 * (number % 2), size),
                f"{'train' if train else 'held'}_{number}",
            )
            pixels = random.integers(0, 255, (*shape, 3)).astype(np.uint8)
            values = {"cityscapes": [7, 8, 0], "ade20k": [0, 1, 150]}.get(layout, [0, 1, 255])
            mask = np.asarray(values, np.uint8)[random.integers(0, 3, shape)]
            names.append(name)
            image, of_mask = {
                "folders": (
                    f"{'train' if train else 'test'}/images/{name}.jpg",
                    f"{'train' if train else 'test'}/masks/{name}.png",
                ),
                "voc": (f"JPEGImages/{name}.jpg", f"SegmentationClass/{name}.png"),
                "cityscapes": (
                    f"leftImg8bit/{'train' if train else 'val'}/town/{name}_leftImg8bit.png",
                    f"gtFine/{'train' if train else 'val'}/town/{name}_gtFine_labelIds.png",
                ),
                "ade20k": (
                    f"images/{'training' if train else 'validation'}/{name}.jpg",
                    f"annotations/{'training' if train else 'validation'}/{name}.png",
                ),
            }[layout]
            write(root / image, pixels)
            write(root / of_mask, mask, palette=layout == "voc")
        if layout == "voc":
            lists = root / "ImageSets" / "Segmentation"
            lists.mkdir(parents=True, exist_ok=True)
            (lists / f"{'train' if train else 'val'}.txt").write_text("\n".join(names))
    if layout == "folders":
        (root / "classes.txt").write_text("ground\nsquare\n")
    return mask


def settings(source: str, **changes) -> list[str]:
    """Flags of a run of `configs/segmentation.py` with the tiny network; `a__b=1` is `a.b`."""
    values = {
        "epochs": 2,
        "batch_size": 8,
        "evaluation__batch_size": 4,
        "data__source": source,
        "data__canvas": (),
        "data__ignored": 255,
        "data__test_split": "",
        "data__class_names": (),
        "segmentation__crop": (8, 10),
        "segmentation__output_stride": 1,
        "segmentation__rate": 1,
        "segmentation__width": 8,
    } | changes
    flags = [f"--config.{name.replace('__', '.')}={value}" for name, value in values.items()]
    return ["--config=configs/segmentation.py:camvid,tiny", *flags]
