"""Validation of a config, before data is read or anything is built."""

from __future__ import annotations

import jax
from ml_collections import ConfigDict

from kdjax import config as configs
from kdjax.data import Dataset, order, preprocessing
from kdjax.errors import UserError
from kdjax.methods import METHODS
from kdjax.runs import wandb
from kdjax.training import optimizers, teachers


def check(config: ConfigDict) -> None:
    """Checks a config, and that of the teacher if the run trains one.

    No file is read and no device is used.

    Raises:
      UserError: an unknown name, a value of the wrong type or out of range, or settings that
        exclude each other.
    """
    configs.validate(config)
    _check_data(config.data)
    optimizers.check(config)
    wandb.check(config.wandb)
    _check_micro_batches(config)
    if config.evaluation.patience and config.pruning.method:
        raise UserError(
            f"config.evaluation.patience={config.evaluation.patience}: pruning by config.pruning."
            f"method={config.pruning.method!r} is complete at the end of its schedule only; set "
            "patience to 0"
        )
    if config.ema.decay and config.pruning.method:
        raise UserError(
            "config.ema.decay and config.pruning.method exclude each other: an average of weights "
            "has no pruned filters; set config.ema.decay to 0"
        )
    _check_shrinking(config)
    teacher = teachers.config_of_teacher(config)
    if teacher is not None:
        check(teacher)


def _check_data(data: ConfigDict) -> None:
    """Raises `UserError` for settings of `config.data` that no data set can be read with."""
    if data.views < 1:
        raise UserError(f"config.data.views={data.views}: must be at least 1")
    order.check_companions(data.images_per_class, data.partners)
    preprocessing.augmenter(data.augmentation, data.policies)


def check_batch(batch_size: int, device_count: int, micro_batches: int = 1) -> None:
    """Checks that a batch divides evenly among the devices of all processes.

    Args:
      batch_size: the global batch size.
      device_count: the number of devices of all processes.
      micro_batches: `config.optimizer.accumulate`.

    Raises:
      UserError: the batch size is not a multiple of the number of devices, or a micro-batch is not.
    """
    if batch_size % device_count:
        raise UserError(
            f"config.batch_size={batch_size} is not divisible by the {device_count} devices of "
            f"{jax.process_count()} process(es); use a multiple of {device_count}"
        )
    if batch_size % micro_batches == 0 and batch_size // micro_batches % device_count:
        raise UserError(
            f"config.optimizer.accumulate={micro_batches}: a micro-batch of "
            f"{batch_size // micro_batches} images is not divisible by the {device_count} devices "
            f"of {jax.process_count()} process(es); use fewer micro-batches"
        )


def check_targets(config: ConfigDict, dataset: Dataset) -> None:
    """Checks that images have masks or objects if, and only if, the method learns from them.

    Args:
      config: `config.method` and `config.data.source`.
      dataset: of the source.

    Raises:
      UserError: the method needs what the source lacks, or does not read what it has.
    """
    entry = METHODS[config.method]
    has_masks, has_objects = dataset.has_masks, dataset.has_objects
    if entry.objects and not has_objects:
        raise UserError(
            f"method {entry.name!r} learns from objects in boxes, and images of "
            f"config.data.source={config.data.source!r} come without; use coco:PATH, voc:PATH or "
            "yolo:PATH"
        )
    if has_objects and not entry.objects:
        raise UserError(
            f"images of config.data.source={config.data.source!r} have objects in place of a "
            f"class; method {entry.name!r} does not read them: use config.method='detection'"
        )
    if entry.masks and not has_masks:
        raise UserError(
            f"method {entry.name!r} learns the class of every pixel, and images of "
            f"config.data.source={config.data.source!r} come without masks; use masks:PATH, or "
            "arrays:FILE.npz with masks"
        )
    if has_masks and not entry.masks:
        raise UserError(
            f"images of config.data.source={config.data.source!r} have masks in place of a class; "
            f"method {entry.name!r} does not read them: use config.method='segmentation'"
        )


def _check_micro_batches(config: ConfigDict) -> None:
    count, group = config.optimizer.accumulate, max(config.data.images_per_class, 1)
    if config.batch_size % count:
        raise UserError(
            f"config.optimizer.accumulate={count} does not divide config.batch_size="
            f"{config.batch_size}; a step is as many equal micro-batches"
        )
    if count > 1 and config.batch_size // count % group:
        raise UserError(
            f"config.optimizer.accumulate={count}: a micro-batch of {config.batch_size // count} "
            f"images has no whole groups of config.data.images_per_class={group}; use a multiple"
        )


def _check_shrinking(config: ConfigDict) -> None:
    settings = config.pruning
    if not settings.shrink_epochs:
        return
    reason = ""
    if settings.method not in ("hfp", "ghfp"):
        reason = f"filters of method {settings.method!r} return; use 'hfp' or 'ghfp'"
    elif settings.unit != "filters":
        reason = "single weights cannot be taken out; use config.pruning.unit='filters'"
    elif settings.filters == "conv" or settings.patterns:
        reason = (
            "BatchNorm must be pruned with the filters, and filters be the networks' own; use "
            "config.pruning.filters='conv_bn' or 'coupled', without patterns"
        )
    elif config.shared_stages:
        reason = "networks that share stages cannot; set config.shared_stages to 0"
    elif not all(0 < epoch < config.epochs for epoch in settings.shrink_epochs):
        reason = f"training goes on after epochs 1 ... {config.epochs - 1} only"
    if reason:
        raise UserError(f"config.pruning.shrink_epochs={settings.shrink_epochs}: {reason}")
