"""A data set in pieces of a given size, for a machine that takes little at a time.

    python -m experiments.gpu.pieces DATA/cifar100_train.npz --output DIR --train_pieces 5

Reads a pair NAME_train.npz, NAME_test.npz with `image` (uint8 [N, H, W, 3]) and `label` and writes
DIR/train_0.npz, DIR/train_1.npz, ... and DIR/test_0.npz, smaller and without loss: every pixel is
predicted from its neighbors, the residuals are compressed by bzip2. `join` makes the pair again
from the pieces that have arrived.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import shutil
import sys
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np


def residuals(images: np.ndarray) -> np.ndarray:
    """Images `[N, H, W, 3]` -> differences from their prediction, planes `[3, N, H, W]`, mod 256.

    Green is coded as it is, red and blue as differences from it. The prediction is the median of
    left, above and left + above - corner, as in JPEG-LS; outside the image pixels are 0.
    """
    green = images[..., 1]
    planes = np.stack([green, images[..., 0] - green, images[..., 2] - green])
    padded = np.pad(planes, ((0, 0), (0, 0), (1, 0), (1, 0)))
    left, above, corner = padded[..., 1:, :-1], padded[..., :-1, 1:], padded[..., :-1, :-1]
    return planes - _predicted(left, above, corner)


def images_of(differences: np.ndarray) -> np.ndarray:
    """The inverse of `residuals`."""
    _, count, height, width = differences.shape
    # Pixels first: what is computed at a time lies together.
    differences = np.ascontiguousarray(differences.transpose(2, 3, 0, 1))
    planes = np.zeros((height + 1, width + 1, 3, count), np.uint8)
    for i in range(height):
        for j in range(width):
            neighbors = planes[i + 1, j], planes[i, j + 1], planes[i, j]
            planes[i + 1, j + 1] = differences[i, j] + _predicted(*neighbors)
    green, red, blue = (planes[1:, 1:, plane] for plane in range(3))
    images = np.stack([red + green, green, blue + green])  # [3, H, W, N]
    return np.ascontiguousarray(images.transpose(3, 1, 2, 0))


def _predicted(left: np.ndarray, above: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """The median, of values taken as signed: differences of colors are small around 0."""
    left, above, corner = (
        x.view(np.int8).astype(np.int16) for x in map(_copied, (left, above, corner))
    )
    low, high = np.minimum(left, above), np.maximum(left, above)
    return np.clip(left + above - corner, low, high).astype(np.uint8)


def _copied(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x)


def write(file: Path, images: np.ndarray, labels: np.ndarray, first: int) -> None:
    """Writes a piece; `first` is the number of its first image."""
    arrays = {"residual": residuals(images), "label": labels, "first": np.asarray(first)}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_BZIP2) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(f"{name}.npy", buffer.getvalue())


def read(file: Path) -> tuple[int, np.ndarray, np.ndarray]:
    """Number of the first image, images and labels of a piece."""
    with np.load(file) as piece:
        return int(piece["first"]), images_of(piece["residual"]), piece["label"]


def join(folder: Path, output: Path, name: str = "data") -> dict[str, int]:
    """Makes OUTPUT/NAME_train.npz and NAME_test.npz from a folder's pieces; counts of images.

    Raises:
      SystemExit: there is no piece of one of the splits.
    """
    counts = {}
    output.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        files = sorted(folder.glob(f"{split}_*.npz"))
        if not files:
            raise SystemExit(f"--data={folder}: no {split}_*.npz; see experiments/gpu/pieces.py")
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(len(files), 8), context) as pool:
            parts = sorted(pool.map(read, files), key=lambda part: part[0])
        images, labels = (np.concatenate([part[k] for part in parts]) for k in (1, 2))
        np.savez(output / f"{name}_{split}.npz", image=images, label=labels.astype(np.int32))
        counts[split] = len(labels)
    return counts


def copy_others(folder: Path, output: Path) -> None:
    """Copies the .npz files of a folder that are no pieces, such as CamVid's."""
    pieces = {*folder.glob("train_[0-9]*.npz"), *folder.glob("test_[0-9]*.npz")}
    for file in {*folder.glob("*.npz")} - pieces:
        shutil.copy(file, output)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path, help="NAME_train.npz; NAME_test.npz lies beside it")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--train_pieces", type=int, default=5)
    options = parser.parse_args(argv)
    options.output.mkdir(parents=True, exist_ok=True)
    test = options.train.with_name(options.train.name.replace("_train", "_test"))
    for split, file, count in (("train", options.train, options.train_pieces), ("test", test, 1)):
        with np.load(file) as arrays:
            images, labels = arrays["image"], arrays["label"]
        first = 0
        for number, rows in enumerate(np.array_split(np.arange(len(labels)), count)):
            piece = options.output / f"{split}_{number}.npz"
            write(piece, images[rows], labels[rows], first)
            first += len(rows)
            print(f"{piece}: {len(rows)} images, {piece.stat().st_size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
