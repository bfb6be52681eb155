"""From a config to a program."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

from ml_collections import ConfigDict

from kdjax import data, methods
from kdjax.data import preprocessing
from kdjax.data.dispatches import automatic_steps
from kdjax.data.feed import Feed
from kdjax.methods import Method
from kdjax.models import Compaction
from kdjax.networks import Normalization
from kdjax.parallel import AXIS, Parallel
from kdjax.training import checks, neighbors, optimizers, teachers
from kdjax.training.input_images import input_spec, normalized
from kdjax.training.program import Program
from kdjax.training.step import train_step


def build(
    config: ConfigDict,
    workdir: Path | None = None,
    *,
    with_teacher: bool = True,
    compactions: Mapping[str, Compaction] | None = None,
    normalization: Normalization | None = None,
) -> Program:
    """The program of a config.

    Args:
      config: see `kdjax.config`.
      workdir: the run's directory, which holds the teacher if the run trains one.
      with_teacher: whether the teacher's weights are loaded. Without them the program serves to
        inspect batches, not to train or evaluate.
      compactions: the remaining filters of compacted networks, by 'network_i', if their weights
        come from a checkpoint; None for the networks that the run starts from.
      normalization: the statistics that images are normalized with, if the weights come from a
        checkpoint; None for those of `config.start` or of a frozen backbone, or else of the data.

    Raises:
      UserError: an invalid setting, or data that cannot be read or do not fit the settings.
    """
    checks.check(config)
    narrow = "bfloat16" in (config.dtype, config.teacher.dtype)
    parallel = Parallel(config.parallel, "bfloat16" if narrow else config.dtype)
    checks.check_batch(config.batch_size, parallel.device_count, config.optimizer.accumulate)
    resolved = teachers.resolved(config, workdir)
    without_teacher = not with_teacher and methods.needs_teacher(config)
    if normalization is None and not without_teacher:
        normalization = methods.starting_normalization(resolved)
    dataset = normalized(data.load(config), normalization, config)
    checks.check_targets(config, dataset)
    max_steps = config.steps_per_dispatch or automatic_steps(dataset, config)
    feed = Feed(config, dataset, parallel, max_steps, methods.objects_augmentation(config))
    stand_in = None
    if without_teacher:
        stand_in = teachers.abstract_teacher(config, dataset.num_classes)

    def create_method(compactions: Mapping[str, Compaction] | None) -> Method:
        return methods.create(
            resolved,
            num_classes=dataset.num_classes,
            images=input_spec(dataset),
            axis_name=AXIS,
            train_labels=dataset.train.labels,
            teacher=stand_in,
            compactions=compactions,
            schedule=optimizers.learning_rate(config, feed.steps_per_epoch),
        )

    return _compiled(config, parallel, feed, create_method, compactions)


def _compiled(
    config: ConfigDict,
    parallel: Parallel,
    feed: Feed,
    create_method: Callable[[Mapping[str, Compaction] | None], Method],
    compactions: Mapping[str, Compaction] | None,
) -> Program:
    """The program of a run for compactions; None for those that the run starts from."""
    dataset = feed.dataset
    method = create_method(compactions)
    if dataset.has_objects:
        prepare = preprocessing.objects_train_input(dataset)
    elif method.augment is None:
        prepare = preprocessing.train_input(
            dataset,
            config.data.augmentation,
            views=config.data.views,
            policy_names=config.data.policies,
        )
    else:
        prepare = preprocessing.masked_train_input(dataset, method.augment)
    tx = method.optimizer(optimizers.create(config, feed.steps_per_epoch))
    step = train_step(
        method,
        tx,
        prepare,
        micro_batches=config.optimizer.accumulate,
        places=feed.places,
    )
    evaluation, embeddings = neighbors.evaluation_steps(config, method, dataset)
    if compactions is None:
        compactions = methods.starting_compactions(config)
    return Program(
        config=config,
        parallel=parallel,
        feed=feed,
        prepare=prepare,
        rebuild=functools.partial(_compiled, config, parallel, feed, create_method),
        compactions=compactions,
        method=method,
        tx=tx,
        train_steps=parallel.map(
            step, donate=True, barriers=config.remat or config.optimizer.accumulate > 1
        ),
        evaluation_steps=parallel.map(evaluation),
        embeddings_steps=None if embeddings is None else parallel.map(embeddings),
    )
