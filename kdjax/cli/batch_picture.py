"""What a run's networks are shown at a step: the images, and what is said of each, as a picture."""

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
from kdjax.training.program import Program, build
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
    """What R rows of a step look like.

    Attributes:
      pictures: uint8 `[R, H, W, C]`.
      captions: one per row, in lines.
      total: how many rows the step has, these included.
    """

    pictures: np.ndarray
    captions: list[str]
    total: int


def write_batch(config: ConfigDict, workdir: Path, *, step: int, limit: int) -> tuple[Path, Shown]:
    """Writes `workdir/batch.png`, over the one that is there: `shown` as one picture.

    Returns:
      The file, and what is on it.

    Raises:
      UserError: as `shown`, and if the file cannot be written.
    """
    rows = shown(config, step=step, limit=limit)
    path = workdir / "batch.png"
    if jax.process_index() == 0:
        save(sheet(rows.pictures, rows.captions), path)
    return path, rows


def save(page: Image.Image, path: Path) -> None:
    """Writes a PNG file, over the one that is there.

    Raises:
      UserError: it cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        page.save(temporary, format="PNG")
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"--workdir={path.parent} cannot be written: {error.strerror}") from error


def shown(config: ConfigDict, *, step: int, limit: int) -> Shown:
    """The first rows that this process's devices are shown at a step, in their order.

    Data, augmentation and random numbers are those of training. Nothing is trained: a teacher that
    the run would train first, or read, need not be there.

    Args:
      config: of the program.
      step: counted from 0.
      limit: how many rows at most.

    Raises:
      UserError: settings that make no run, or a step that it does not have.
    """
    config = ConfigDict(config.to_dict())
    # One step of one epoch is read, and lies on the host: how steps are sent changes no image.
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
    """What each device's networks are shown, of as many devices as make `limit` rows."""
    epoch, first = divmod(step, program.steps_per_epoch)
    batches = program.feed.train(epoch, first)
    try:
        _, batches_of_devices = next(batches)
    finally:
        batches.close()
    make = jax.jit(step_batch(program.prepare, program.config.seed))
    constants = program.feed.constants("train")
    local = program.parallel.local_device_count
    inputs, rows = [], 0
    for index in range(local):
        batch = jax.tree.map(lambda x, i=index: x[i, 0], batches_of_devices)
        device = jax.process_index() * local + index
        # Not traced: notes may say what was drawn.
        given = make(constants, batch, np.int32(step), np.int32(device))
        inputs.append(program.method.inputs(*given))
        rows += len(inputs[-1].images)
        if rows >= limit:
            break
    return inputs


def pixels(images: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Normalized images `[R, H, W, C]` as uint8; what is darker or brighter than pixels is cut."""
    return np.clip(np.rint((images * std + mean) * 255), 0, 255).astype(np.uint8)


def captions(inputs: Inputs, class_names: Sequence[str]) -> list[str]:
    """What is written below each row's picture: its labels, and its note on a line of its own.

    A weight of 1 is not written, a label of weight 0 is left out.

    Args:
      inputs: R rows; the images are not looked at.
      class_names: of the data.

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
    """Pictures in rows of `most_columns`, each enlarged by a whole factor, its text below.

    Args:
      pictures: uint8 `[R, H, W, C]`; of one channel they are gray, of three colored, of another
        number the channels are side by side.
      texts: R of them; lines that are too long are broken, and what is too much is cut ('...').
      most_columns: pictures of a row.
    """
    pictures = _printable(pictures)
    count, height, width = pictures.shape[:3]
    scale = max(1, SIDE // max(height, width))
    font = ImageFont.load_default(_FONT_SIZE)
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


def _printable(pictures: np.ndarray) -> np.ndarray:
    """`[R, H, W]` or `[R, H, W, 3]`."""
    channels = pictures.shape[-1]
    if channels == 3:
        return pictures
    return np.concatenate([pictures[..., each] for each in range(channels)], axis=2)


def broken(text: str, width: float, length: Callable[[str], float]) -> list[str]:
    """Lines of at most `width`, broken at spaces; longer words, and too many lines, are cut.

    A label stays together with its weight unless both are longer than a line.

    Args:
      text: as of `captions`.
      width: of a line.
      length: `text -> width` of it.
    """
    broken_lines = []
    for line in text.split("\n"):
        words = []
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
    """The word, or as much of its beginning as fits with dots after it."""
    if length(word) <= width:
        return word
    return next(
        (cut for end in range(len(word), 0, -1) if length(cut := f"{word[:end]}...") <= width), ""
    )
