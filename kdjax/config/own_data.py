"""Data of the user's own, `folder:PATH`, `hf:PATH` and `arrays:FILE.npz`: what fits them."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from kdjax.data import npz_members
from kdjax.data.folder import EXTENSIONS
from kdjax.data.images import stored_size
from kdjax.data.regular_files import expanded, is_directory, is_regular, sorted_entries

KINDS = ("folder:", "hf:", "arrays:")
LARGE = 96  # pixels: from this side on, images are shown to networks for ImageNet

_SAMPLE = 32  # images whose sizes are looked at
_STEPS = 16  # the least of an epoch, where images suffice
_LEAST_BATCH = 8
_SEEN = 15_000_000  # images of a whole training, those of CIFAR's 300 epochs
_EPOCHS = (60, 200)
_WARM_UP = 5  # epochs
_HELD_OUT = 0.2


class Facts(NamedTuple):
    """What is known of a data set without reading its images.

    Attributes:
      images: number of training images, those to be held out included.
      classes: number of classes.
      side: the usual shorter side in pixels.
      has_test: whether there are images to evaluate on.
    """

    images: int
    classes: int
    side: int
    has_test: bool


def is_own(source: str) -> bool:
    """Whether a source is one of the user's own."""
    return source.startswith(KINDS)


def facts(source: str) -> Facts | None:
    """The facts of `folder:PATH`, `hf:PATH` or `arrays:FILE.npz`.

    Returns:
      None for other sources, and where nothing of that kind is there or its columns are not known.

    Raises:
      UserError: a file is damaged.
    """
    kind, _, place = source.partition(":")
    if f"{kind}:" not in KINDS or not place:
        return None
    path = expanded(place)
    return {"folder": _of_folder, "hf": _of_hf, "arrays": _of_arrays}[kind](path)


def is_large(source: str) -> bool:
    """Whether the images are as large as ImageNet's; those of a missing folder are."""
    known = facts(source)
    if known is None:
        return not source.startswith("arrays:")
    return known.side >= LARGE


def use(config: ConfigDict, source: str) -> None:
    """Sets `config.data` as fits a source: size, augmentation, and held-out images if it has none.

    Images in files with a usual side of at least 96 pixels are seen at 224x224, smaller ones at
    64x64 or 32x32; arrays as they are stored.

    Raises:
      UserError: a file is damaged.
    """
    data, known = config.data, facts(source)
    data.source = source
    if known is not None and not known.has_test:
        data.validation_fraction = _HELD_OUT
    if source.startswith("arrays:"):
        return
    if known is None or known.side >= LARGE:
        data.augmentation, data.image_size = "resized_crop_flip", 224
    else:
        data.image_size = 32 if known.side <= 48 else 64


def fitted(config: ConfigDict) -> ConfigDict:
    """The config with a batch and a schedule that fit data of the user's own; others as they are.

    An epoch has at least 16 steps, with batches of at least 8; the learning rate shrinks with the
    batch. 15 million images are seen, in 60 to 200 epochs, by a cosine after 5 epochs of warm-up.

    Raises:
      UserError: a file is damaged.
    """
    known = facts(config.data.source)
    if known is None or not known.images:
        return config
    trained = known.images * (1 - config.data.validation_fraction)
    fitting = 2 ** int(math.log2(max(_LEAST_BATCH, trained / _STEPS)))
    batch_size, optimizer = min(config.batch_size, fitting), config.optimizer
    optimizer.learning_rate *= batch_size / config.batch_size
    config.batch_size = batch_size
    config.epochs = round(min(max(_SEEN / trained, _EPOCHS[0]), _EPOCHS[1]))
    optimizer.schedule, optimizer.milestones, optimizer.factors = "cosine", (), ()
    optimizer.warm_up_epochs = _WARM_UP
    if config.data.images_per_class:
        config.data.images_per_class = images_per_class(batch_size, known.classes)
    return config


def images_per_class(batch_size: int, classes: int) -> int:
    """The least number of images, from 2 on, that all classes of a batch can come with.

    It divides the batch, and a batch has no more classes than there are.
    """
    numbers = range(2, batch_size + 1)
    return next(n for n in numbers if batch_size % n == 0 and batch_size // n <= classes)


def _of_folder(root: Path) -> Facts | None:
    train = root / "train" if is_directory(root / "train") else root
    if not is_directory(train):
        return None
    classes = [entry for entry in sorted_entries(train) if is_directory(entry)]
    files = [
        path
        for folder in classes
        for path in sorted_entries(folder)
        if path.suffix.lower() in EXTENSIONS
    ]
    if not files:
        return None
    side = _usual_side([stored_size(path) for path in _sampled(files)])
    has_test = any(is_directory(root / name) for name in ("test", "val"))
    return Facts(len(files), len(classes), side, has_test and train != root)


def _of_hf(root: Path) -> Facts | None:
    if importlib.util.find_spec("datasets") is None or not is_directory(root):
        return None
    from kdjax.data import hf_source  # it imports the library

    known = hf_source.overview(root)
    if known is None or not len(known.train):
        return None
    sizes = [known.train.size(index) for index in _sampled(range(len(known.train)))]
    return Facts(len(known.train), known.classes, _usual_side(sizes), known.has_test)


def _sampled(items: Sequence[Any]) -> Sequence[Any]:
    return items[:: -(-len(items) // _SAMPLE)]


def _usual_side(sizes: Iterable[tuple[int, int]]) -> int:
    return int(np.median([min(size) for size in sizes]))


def _of_arrays(path: Path) -> Facts | None:
    if not is_regular(path):
        return None
    members = npz_members.read_members(path, ("train_labels", "label"))
    images_name = "train_images" if "train_images" in members else "image"
    labels = members.get("train_labels" if "train_images" in members else "label")
    if labels is None or images_name not in members or not labels.size:
        return None
    shape = npz_members.shape_of(path, images_name)
    side = shape[2] if len(shape) == 4 else 0  # of NHWC and NCHW
    return Facts(len(labels), int(labels.max()) + 1, side, True)
