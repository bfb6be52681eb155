"""A picture of the network inputs of one training step: images with labels and notes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageDraw, ImageFont

from kdjax.errors import UserError
from kdjax.methods.base import Inputs
from kdjax.training.building import build
from kdjax.training.program import Program
from kdjax.training.step import step_batch

COLUMNS = 12  # so that 2, 3, 4, 6 or 24 views of an image end where a row does
SIDE = 128  # pixels; smaller images are enlarged towards it
_MARGIN = 8
_GAP = 2  # between a picture and its caption
_LEAST_WIDTH = 96  # of a caption
_MOST_LINES = 5
_FONT_SIZE = 13
# Where a line may end: not before a weight or the number in a note, nor between plus and label.
_BREAK = re.compile(r" (?=\+)|(?<!\+) (?![+\d])")


class Shown(NamedTuple):
    """The inputs of a step as pictures with captions.

    Attributes:
      pictures: uint8 `[R, H, W, C]`, the images of R rows.
      captions: a caption per row, with line breaks.
      total: the number of rows of the step.
    """

    pictures: np.ndarray
    captions: list[str]
    total: int


def write_batch(config: ConfigDict, workdir: Path, *, step: int, limit: int) -> tuple[Path, Shown]:
    """Writes the rows of `shown` as one picture to `workdir/batch.png`, replacing it.

    Returns:
      The path of the file, and the rows.

    Raises:
      UserError: as `shown`, and if the file cannot be written.
    """
    rows = shown(config, step=step, limit=limit)
    path = workdir / "batch.png"
    if jax.process_index() == 0:
        save(sheet(rows.pictures, rows.captions), path)
    return path, rows


def save(page: Image.Image, path: Path) -> None:
    """Writes a PNG file, replacing an existing one.

    Raises:
      UserError: the file cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        page.save(temporary, format="PNG")
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"--workdir={path.parent} cannot be written: {error.strerror}") from error


def shown(config: ConfigDict, *, step: int, limit: int) -> Shown:
    """The first rows of the network inputs of this process's devices at a step.

    Data, augmentation and random numbers are those of training. No network is trained or read, so
    that the run's teacher need not exist.

    Args:
      config: the config of the run.
      step: the step, counted from 0.
      limit: the largest number of rows.

    Raises:
      UserError: invalid settings, or a step beyond the end of the run.
    """
    config = ConfigDict(config.to_dict())
    # One step is read on the host; the number of steps per dispatch does not change the images.
    config.update(steps_per_dispatch=1, parallel="pmap")
    program = build(config, with_teacher=False)
    steps = config.epochs * program.steps_per_epoch
    if step >= steps:
        raise UserError(
            f"--step={step}: the run has steps 0..{steps - 1}; use one of them, or more "
            "config.epochs"
        )
    inputs, dataset = _inputs(program, step, limit), program.feed.dataset
    images = np.concatenate([np.asarray(part.images[:limit], np.float32) for part in inputs])
    texts = [text for part in inputs for text in captions(part, dataset.class_names)]
    total = len(inputs[0].images) * program.parallel.local_device_count
    return Shown(pixels(images[:limit], dataset.mean, dataset.std), texts[:limit], total)


def _inputs(program: Program, step: int, limit: int) -> list[Inputs]:
    """The network inputs of the first devices, as many as have `limit` rows together."""
    epoch, first = divmod(step, program.steps_per_epoch)
    batches = program.feed.train(epoch, first)
    try:
        _, batches_of_devices = next(batches)
    finally:
        batches.close()
    make = jax.jit(step_batch(program.prepare, program.config.seed, program.feed.places))
    constants = program.feed.constants("train")
    local = program.parallel.local_device_count
    inputs, rows = [], 0
    for index in range(local):
        batch = jax.tree.map(lambda x, i=index: x[i, 0], batches_of_devices)
        device = jax.process_index() * local + index
        # Not traced, as notes may depend on the drawn values.
        arguments = make(constants, batch, np.int32(step), np.int32(device))
        inputs.append(program.method.inputs(*arguments))
        rows += len(inputs[-1].images)
        if rows >= limit:
            break
    return inputs


def pixels(images: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Denormalizes images `[R, H, W, C]` to uint8, clipped to 0 .. 255."""
    return np.clip(np.rint((images * std + mean) * 255), 0, 255).astype(np.uint8)


def captions(inputs: Inputs, class_names: Sequence[str]) -> list[str]:
    """The captions of rows: their labels, and their notes on a separate line.

    Weights of 1 and labels of weight 0 are omitted.

    Args:
      inputs: the inputs of R rows; the images are not read.
      class_names: the names of the classes.

    Returns:
      R texts such as 'cat' or 'cat: 0.73 + dog: 0.27'.
    """
    texts = []
    rows = zip(np.asarray(inputs.labels), np.asarray(inputs.weights), strict=True)
    for labels, weights in rows:
        parts = [
            class_names[label] if weight == 1 else f"{class_names[label]}: {weight:.2f}"
            for label, weight in zip(labels, weights, strict=True)
            if weight != 0
        ]
        texts.append(" + ".join(parts))
    if not len(inputs.notes):
        return texts
    return [f"{text}\n{note}" for text, note in zip(texts, inputs.notes, strict=True)]


def sheet(pictures: np.ndarray, texts: Sequence[str], most_columns: int = COLUMNS) -> Image.Image:
    """Arranges pictures in rows of `most_columns`, enlarged by an integer, with texts below.

    Args:
      pictures: uint8 `[R, H, W, C]`; of one channel they are gray, of three colored, of another
        number the channels are side by side.
      texts: R of them; lines that are too long are broken, and what is too much is cut ('...').
      most_columns: pictures of a row.
    """
    pictures = _printable(pictures)
    count, height, width = pictures.shape[:3]
    scale = max(1, SIDE // max(height, width))
    font = text_font()
    tile = max(width * scale, _LEAST_WIDTH)
    lines = [broken(text, tile, font.getlength) for text in texts]
    line_height = sum(font.getmetrics())
    down = height * scale + _GAP + line_height * max(map(len, lines))
    columns = min(most_columns, count)
    size = (
        columns * (tile + _MARGIN) + _MARGIN,
        -(-count // columns) * (down + _MARGIN) + _MARGIN,
    )
    page = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(page)
    for place, (picture, text_lines) in enumerate(zip(pictures, lines, strict=True)):
        left = _MARGIN + place % columns * (tile + _MARGIN)
        top = _MARGIN + place // columns * (down + _MARGIN)
        enlarged = picture.repeat(scale, axis=0).repeat(scale, axis=1)
        page.paste(Image.fromarray(enlarged), (left, top))
        for number, line in enumerate(text_lines):
            below = top + height * scale + _GAP + number * line_height
            draw.text((left, below), line, fill="black", font=font)
    return page


def text_font() -> ImageFont.FreeTypeFont:
    """The font of captions.

    Raises:
      UserError: Pillow cannot scale fonts.
    """
    font = ImageFont.load_default(_FONT_SIZE)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise UserError("Pillow was built without FreeType; pip install --force-reinstall pillow")
    return font


def _printable(pictures: np.ndarray) -> np.ndarray:
    """Pictures as `[R, H, W]` or `[R, H, W, 3]`: the channels of others are side by side."""
    channels = pictures.shape[-1]
    if channels == 3:
        return pictures
    return np.concatenate([pictures[..., channel] for channel in range(channels)], axis=2)


def broken(text: str, width: float, length: Callable[[str], float]) -> list[str]:
    """Breaks a text at spaces into lines of at most `width`, and truncates what does not fit.

    A label stays together with its weight unless both are longer than a line.

    Args:
      text: as of `captions`.
      width: of a line.
      length: `text -> width` of it.
    """
    broken_lines = []
    for line in text.split("\n"):
        words: list[str] = []
        for part in _BREAK.split(line):
            words += [part] if length(part) <= width else part.split(" ")
        current, *words = (_cut(word, width, length) for word in words)
        for word in words:
            if length(f"{current} {word}") <= width:
                current = f"{current} {word}"
            else:
                broken_lines.append(current)
                current = word
        broken_lines.append(current)
    if len(broken_lines) <= _MOST_LINES:
        return broken_lines
    return [*broken_lines[: _MOST_LINES - 1], "..."]


def _cut(word: str, width: float, length: Callable[[str], float]) -> str:
    """The word, truncated with dots if it is wider than `width`."""
    if length(word) <= width:
        return word
    return next(
        (cut for end in range(len(word), 0, -1) if length(cut := f"{word[:end]}...") <= width), ""
    )
