"""A picture of the network inputs of one training step: images with labels and notes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from kdjax.cli.picture_sheet import CaptionedPictures, save, sheet
from kdjax.errors import UserError
from kdjax.methods.base import Inputs
from kdjax.training.building import build
from kdjax.training.program import Program
from kdjax.training.step import step_batch


def write_batch(
    config: ConfigDict, workdir: Path, *, step: int, limit: int
) -> tuple[Path, CaptionedPictures]:
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


def shown(config: ConfigDict, *, step: int, limit: int) -> CaptionedPictures:
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
    return CaptionedPictures(
        pixels(images[:limit], dataset.mean, dataset.std), texts[:limit], total
    )


def _inputs(program: Program, step: int, limit: int) -> list[Inputs]:
    """The network inputs of the first devices, as many as have `limit` rows together."""
    epoch, first = divmod(step, program.steps_per_epoch)
    batches = program.feed.train(epoch, first)
    try:
        _, batches_of_devices = next(batches)
    finally:
        batches.close()
    make = jax.jit(step_batch(program.prepare, places=program.feed.places))
    constants = program.feed.train_constants()
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
