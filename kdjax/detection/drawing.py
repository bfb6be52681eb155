"""Boxes drawn into images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from kdjax.detection.average_precision import Detected

_COLORS = (
    (230, 60, 60), (60, 160, 250), (60, 200, 90), (250, 180, 40), (190, 90, 230), (60, 210, 210),
    (250, 110, 180), (170, 200, 50),
)  # fmt: skip


def draw(
    pixels: np.ndarray,
    detected: Detected,
    class_names: Sequence[str],
    *,
    lowest: float = 0.5,
    scale: int = 1,
    scores: bool = True,
) -> np.ndarray:
    """Draws boxes with class names and scores into an enlarged copy of an image.

    Args:
      pixels: uint8 `[H, W, 3]`.
      detected: detections, in pixels of the image; the best are drawn last, over the others.
      class_names: by category.
      lowest: smallest score of the boxes that are drawn.
      scale: factor by which both sides are enlarged.
      scores: whether scores are written behind the names.

    Returns:
      uint8 `[scale * H, scale * W, 3]`
    """
    height, width = pixels.shape[:2]
    picture = Image.fromarray(pixels).resize((width * scale, height * scale))
    canvas = ImageDraw.Draw(picture)
    for i in np.argsort(detected.score, kind="stable"):
        if detected.score[i] < lowest:
            continue
        category = int(detected.category[i])
        color = _COLORS[category % len(_COLORS)]
        x1, y1, x2, y2 = (float(value) * scale for value in detected.box[i])
        canvas.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=color, width=2)
        text = class_names[category]
        if scores:
            text += f" {detected.score[i]:.2f}"
        left, top, right, bottom = canvas.textbbox((x1 + 2, y1 + 1), text)
        canvas.rectangle((left - 2, top - 1, right + 1, bottom + 1), fill=color)
        canvas.text((x1 + 2, y1 + 1), text, fill=(255, 255, 255))
    return np.asarray(picture)
