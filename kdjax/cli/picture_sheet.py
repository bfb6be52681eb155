"""Pictures with captions on one page."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kdjax.errors import UserError

COLUMNS = 12  # so that 2, 3, 4, 6 or 24 views of an image end where a row does
SIDE = 128  # pixels; smaller images are enlarged towards it
_MARGIN = 8
_GAP = 2  # between a picture and its caption
_MIN_WIDTH = 96  # of a caption
_MAX_LINES = 5
_FONT_SIZE = 13
# Where a line may end: not before a weight or the number in a note, nor between plus and label.
_BREAK = re.compile(r" (?=\+)|(?<!\+) (?![+\d])")


class CaptionedPictures(NamedTuple):
    """Pictures with captions, such as the network inputs of a step.

    Attributes:
      pictures: uint8 `[R, H, W, C]`.
      captions: a caption per picture, with line breaks.
      total: the number of pictures that there are, of which these are the first.
    """

    pictures: np.ndarray
    captions: list[str]
    total: int


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


def sheet(pictures: np.ndarray, texts: Sequence[str], max_columns: int = COLUMNS) -> Image.Image:
    """Arranges pictures in rows of `max_columns`, enlarged by an integer, with texts below.

    Args:
      pictures: uint8 `[R, H, W, C]`; of one channel they are gray, of three colored, of another
        number the channels are side by side.
      texts: R captions; long lines are broken, and captions of many lines are truncated ('...').
      max_columns: largest number of pictures in a row.
    """
    pictures = _printable(pictures)
    count, height, width = pictures.shape[:3]
    scale = max(1, SIDE // max(height, width))
    font = text_font()
    tile = max(width * scale, _MIN_WIDTH)
    lines = [broken(text, tile, font.getlength) for text in texts]
    line_height = sum(font.getmetrics())
    down = height * scale + _GAP + line_height * max(map(len, lines))
    columns = min(max_columns, count)
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
    if len(broken_lines) <= _MAX_LINES:
        return broken_lines
    return [*broken_lines[: _MAX_LINES - 1], "..."]


def _cut(word: str, width: float, length: Callable[[str], float]) -> str:
    """The word, truncated with dots if it is wider than `width`."""
    if length(word) <= width:
        return word
    return next(
        (cut for end in range(len(word), 0, -1) if length(cut := f"{word[:end]}...") <= width), ""
    )
