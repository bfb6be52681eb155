"""Predictions of trained networks for images of the user's own."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from kdjax.cli import frozen
from kdjax.data import decoding, images, npz_members, sources, subset
from kdjax.data.augment import AUGMENTATIONS
from kdjax.data.folder import EXTENSIONS
from kdjax.data.regular_files import expanded, is_directory, is_regular, read_bytes, sorted_entries
from kdjax.errors import UserError
from kdjax.networks import Network, store
from kdjax.networks.network import softmax
from kdjax.runs import files
from kdjax.training import evaluation

_BATCH_SIZE = 256
_MODES = {1: "L", 3: "RGB"}
_KEYS = ("images", "image")


class Predictor(NamedTuple):
    """Networks that predict together, by the mean of their logits.

    Attributes:
      names: of the networks, such as 'network_0'.
      networks: without branches, all of the same classes and input.
      class_names: of the N classes.
      crop_fraction: share of the shorter side that is kept of images larger than the input.
    """

    names: tuple[str, ...]
    networks: tuple[Network, ...]
    class_names: tuple[str, ...]
    crop_fraction: float

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities float32 `[M, N]` for uint8 images `[M, H, W, C]` of the input's shape."""
        logits = [network.logits(pixels, batch_size=_BATCH_SIZE) for network in self.networks]
        return softmax(np.mean(logits, axis=0))

    def fitted(self, pixels: np.ndarray, where: str) -> np.ndarray:
        """An image uint8 `[h, w, C]` brought to the shape of the input, as in evaluation.

        Raises:
          UserError: the networks take other channels, or no squares.
        """
        shape = self.networks[0].spec.input.shape
        if pixels.shape == shape:
            return pixels
        if pixels.shape[-1] != shape[-1] or shape[0] != shape[1]:
            raise UserError(
                f"{where}: an image of shape {pixels.shape} cannot be brought to {shape}, which "
                f"{self.networks[0].spec.name} takes"
            )
        return images.fit_evaluation(pixels, shape[0], self.crop_fraction)


def opened(
    workdir: Path, config: ConfigDict | None, checkpoint: str, members: Sequence[str]
) -> Predictor:
    """The networks of a directory that predict.

    Args:
      workdir: of a run, or a directory that holds a network.
      config: of the data, for the names of the classes; None for those that the run was trained
        with, or, of a network without a run, for numbers.
      checkpoint: 'best' or 'latest'.
      members: the numbers of the networks; () for all.

    Raises:
      UserError: there is no such network, it has no classifier, or the data have other classes.
    """
    trained = frozen.networks_of(workdir, checkpoint)
    names = tuple(f"network_{member}" for member in members) or tuple(trained)
    for name in names:
        if name not in trained:
            raise UserError(f"--members: there is no {name}; there are {', '.join(trained)}")
    networks = tuple(trained[name].backbone for name in names)
    count, crop = networks[0].spec.num_classes, 1.0
    class_names = store.read_class_names(workdir) or tuple(map(str, range(count)))
    if config is not None:
        class_names = subset.subset(sources.open_source(config.data), config.data).class_names
    elif store.is_run(workdir):
        config = evaluation.load_run(workdir).config
    if config is not None:
        crop = AUGMENTATIONS[config.data.augmentation].evaluation_crop
    if len(class_names) != count:
        raise UserError(
            f"{networks[0].spec.name} has {count} classes, "
            f"{workdir if config is None else f'config.data.source={config.data.source}'} has "
            f"{len(class_names)}"
        )
    return Predictor(names, networks, class_names, crop)


def write(predictor: Predictor, source: Path, directory: Path, kind: str) -> tuple[Path, int]:
    """Writes DIRECTORY/predictions.KIND, over the file that is there.

    Args:
      predictor: from `opened`.
      source: a folder, an image file, or FILE.npz.
      directory: made if missing.
      kind: 'csv' or 'json'.

    Returns:
      The file, and the number of images.

    Raises:
      UserError: an image cannot be read, or the file cannot be written.
    """
    named: list[tuple[str, np.ndarray]] = []
    for names, batch in _batches(predictor, source):
        named += zip(names, predictor.predict(batch), strict=True)
    text = _csv(predictor, named) if kind == "csv" else _json(predictor, named)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.cannot_write(directory, error) from error
    path = directory / f"predictions.{kind}"
    files.write_atomically(path, text)
    return path, len(named)


def _batches(predictor: Predictor, source: Path) -> Iterator[tuple[list[str], np.ndarray]]:
    """The names and pixels of images, so many at once as are computed at once."""
    if source.suffix == ".npz":
        pixels = _arrays(source)
        for start in range(0, len(pixels), _BATCH_SIZE):
            arrays = pixels[start : start + _BATCH_SIZE]
            names = [str(start + place) for place in range(len(arrays))]
            yield names, np.stack([predictor.fitted(x, str(source)) for x in arrays])
        return
    paths = _image_files(source)
    channels = predictor.networks[0].spec.input.channels
    if channels not in _MODES:
        raise UserError(f"--images={source}: files have 1 or 3 channels, the network {channels}")

    def load(path: Path) -> np.ndarray:
        pixels = images.decode(read_bytes(path), mode=_MODES[channels], where=str(path))
        return predictor.fitted(pixels, str(path))

    root = source if is_directory(source) else source.parent
    with decoding.threads() as threads:
        for start in range(0, len(paths), _BATCH_SIZE):
            chunk = paths[start : start + _BATCH_SIZE]
            names = [str(path.relative_to(root)) for path in chunk]
            yield names, np.stack(list(threads.map(load, chunk)))


def _arrays(path: Path) -> np.ndarray:
    """The images uint8 [N, H, W, C] of a file of arrays."""
    members = npz_members.read_members(path, _KEYS)
    arrays = [array for key in _KEYS if (array := members.get(key)) is not None]
    if not arrays or arrays[0].dtype != np.uint8 or arrays[0].ndim != 4:
        raise UserError(f"--images={path}: needs an array images, uint8 [N, H, W, C]")
    return arrays[0]


def _image_files(source: Path) -> list[Path]:
    source = expanded(str(source), "--images")
    if is_regular(source):
        return [source]
    if not is_directory(source):
        raise UserError(f"--images={source}: no such folder or file")
    files = list(_below(source))
    if not files:
        raise UserError(f"--images={source}: no images ({', '.join(sorted(EXTENSIONS))}) in it")
    return files


def _below(folder: Path) -> Iterator[Path]:
    """The image files of a folder and its subfolders, by name."""
    for entry in sorted_entries(folder):
        if is_directory(entry):
            yield from _below(entry)
        elif entry.suffix.lower() in EXTENSIONS:
            yield entry


def _csv(predictor: Predictor, named: Sequence[tuple[str, np.ndarray]]) -> str:
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["image", "class", "probability", *predictor.class_names])
    for name, probabilities in named:
        best = int(probabilities.argmax())
        numbers = [f"{probability:.6g}" for probability in probabilities]
        writer.writerow([name, predictor.class_names[best], numbers[best], *numbers])
    return lines.getvalue()


def _json(predictor: Predictor, named: Sequence[tuple[str, np.ndarray]]) -> str:
    predictions = [
        {
            "image": name,
            "class": predictor.class_names[int(probabilities.argmax())],
            "probability": float(probabilities.max()),
            "probabilities": [float(probability) for probability in probabilities],
        }
        for name, probabilities in named
    ]
    document = {
        "networks": list(predictor.names),
        "class_names": list(predictor.class_names),
        "predictions": predictions,
    }
    return json.dumps(document, indent=2) + "\n"
