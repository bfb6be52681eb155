"""A matrix of numbers in 0..1 as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CELL = 44  # pixels
_MARGIN = 8
_FONT_SIZE = 13
# From 0 to 1: dark blue, blue-green, green, yellow.
_COLORS = np.array([(51, 27, 96), (38, 110, 142), (70, 180, 110), (250, 230, 60)], np.float64)


def color(value: float) -> tuple[int, int, int]:
    """The color of a number; what is below 0 or above 1 has the color of 0 or 1."""
    place = np.clip(value, 0, 1) * (len(_COLORS) - 1)
    channels = [np.interp(place, range(len(_COLORS)), column) for column in _COLORS.T]
    return tuple(round(channel) for channel in channels)


def heat_map(values: np.ndarray, labels: Sequence[str]) -> Image.Image:
    """A symmetric matrix, each cell with its number, rows and columns with their labels.

    Args:
      values: `[M, M]`.
      labels: of the M rows, from above, and of the columns, from the left.
    """
    font = ImageFont.load_default(_FONT_SIZE)
    widest = round(max(font.getlength(label) for label in labels))
    edge = widest + 2 * _MARGIN  # where the cells begin
    side = edge + CELL * len(labels) + _MARGIN
    page = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(page)
    for row, label in enumerate(labels):
        middle = edge + CELL * row + CELL // 2
        draw.text((edge - _MARGIN, middle), label, fill="black", font=font, anchor="rm")
        upright = Image.new("RGB", (widest, CELL), "white")
        ImageDraw.Draw(upright).text((0, CELL // 2), label, fill="black", font=font, anchor="lm")
        page.paste(upright.rotate(90, expand=True), (edge + CELL * row, _MARGIN))
        for column, value in enumerate(values[row]):
            left, top = edge + CELL * column, edge + CELL * row
            fill = color(value)
            draw.rectangle((left, top, left + CELL - 1, top + CELL - 1), fill=fill)
            ink = "black" if sum(fill) > 3 * 128 else "white"
            place = (left + CELL // 2, top + CELL // 2)
            draw.text(place, f"{value:.2f}", fill=ink, font=font, anchor="mm")
    return page
