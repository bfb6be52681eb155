"""A picture of a trained network's predictions on images of a split."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageDraw

from kdjax.cli import picture_sheet
from kdjax.data import preprocessing
from kdjax.data.objects.canvas import placed
from kdjax.errors import UserError
from kdjax.methods.base import predictor
from kdjax.parallel import fetch
from kdjax.segmentation.pictures import colors
from kdjax.training import evaluation

_COLUMNS = 2
_MARGIN = 8
_GAP = 3


def write_predictions(
    workdir: Path,
    *,
    config: ConfigDict | None,
    network: int,
    checkpoint: str,
    split: str,
    limit: int,
) -> tuple[Path, int]:
    """Writes `workdir/predictions.png`, over the one that is there.

    Args:
      workdir: of a run.
      config: its settings, where they are others now; None for those of training.
      network: which one, from 0.
      checkpoint: 'best' or 'latest'.
      split: 'test' or 'train'.
      limit: how many images at most, from the first on.

    Returns:
      The file, and how many images are on it.

    Raises:
      UserError: no such run, checkpoint or network; a method whose predictions are not drawn; or
        the file cannot be written.
    """
    run = evaluation.load_run(workdir)
    if config is not None:
        run = dataclasses.replace(run, config=config)
    program, _, state = run.restore(checkpoint)
    method, feed, dataset = program.method, program.feed, program.feed.dataset
    if method.draw is None:
        raise UserError(
            f"--job=show-predictions: predictions of method {run.config.method!r} are classes of "
            "images, which are not drawn; --job=evaluate counts them"
        )
    name = f"network_{network}"
    if network >= len(run.config.networks):
        raise UserError(
            f"--network_index={network}: the run has networks 0..{len(run.config.networks) - 1}"
        )
    prepare, predictions = preprocessing.test_input(dataset), predictor(method)

    @jax.jit
    def predict(params: Any, model_state: Any, constants: Any, batch: Any) -> tuple[Any, jax.Array]:
        images, labels = prepare(constants, batch)
        return predictions(params, model_state, images)[name], labels

    constants = feed.constants(split)
    arrays = getattr(dataset, split)
    pictures, captions = [], []
    for index in range(min(limit, len(arrays.labels))):
        batch = feed.single(split, index)
        results = predict(state.params, state.model_state, constants, batch)
        prediction, label = jax.tree.map(lambda x: x[0], fetch(results))
        image = arrays.images[index] if feed.resident else batch["image"][0]
        if dataset.has_objects:
            label = placed(arrays, index, batch["sizes"][0])
        picture, caption = method.draw(image, prediction, label, dataset.class_names)
        pictures.append(picture)
        captions.append(caption)
    path = workdir / "predictions.png"
    page = picture_sheet.sheet(np.stack(pictures), captions, _COLUMNS)
    if dataset.has_masks:
        page = with_legend(page, dataset.class_names, colors(dataset.num_classes))
    picture_sheet.save(page, path)
    return path, len(pictures)


def with_legend(
    page: Image.Image, class_names: Sequence[str], class_colors: np.ndarray
) -> Image.Image:
    """A page with the colors and the names of classes below, in as many lines as they need.

    Args:
      page: a picture.
      class_names: N of them.
      class_colors: uint8 `[N, 3]`.
    """
    font = picture_sheet.text_font()
    line, places, left, top = sum(font.getmetrics()), [], _MARGIN, page.height
    for name in class_names:
        width = line + _GAP + round(font.getlength(name)) + _MARGIN
        if left > _MARGIN and left + width > page.width:
            left, top = _MARGIN, top + line + _GAP
        places.append((left, top))
        left += width
    longer = Image.new("RGB", (page.width, top + line + _MARGIN), "white")
    longer.paste(page)
    draw = ImageDraw.Draw(longer)
    for name, color, (left, top) in zip(class_names, class_colors, places, strict=True):
        draw.rectangle((left, top, left + line - 2, top + line - 2), fill=tuple(map(int, color)))
        draw.text((left + line + _GAP, top), name, fill="black", font=font)
    return longer
