"""Optimizers and learning-rate schedules by name, and the optax chain of a config.

A user's module adds its own:

    @optimizers.register_optimizer("lion")
    def lion(settings, learning_rate):
        return optax.lion(learning_rate, weight_decay=settings.weight_decay)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from kdjax.errors import UserError
from kdjax.registry import Registry
from kdjax.training import learning_rate as schedules
from kdjax.training.learning_rate import Schedule

# `(config.optimizer, learning rate of the step) -> transformation`.
Optimizer = Callable[[ConfigDict, Schedule], optax.GradientTransformation]
# `(config, steps per epoch) -> learning rate of the step`, without the warm-up.
ScheduleOf = Callable[[ConfigDict, int], Schedule]

OPTIMIZERS: Registry[Optimizer] = Registry("optimizer", "config.optimizer.name")
SCHEDULES: Registry[ScheduleOf] = Registry("schedule", "config.optimizer.schedule")


def register_optimizer(name: str) -> Callable[[Optimizer], Optimizer]:
    """Registers `(config.optimizer, schedule) -> optax.GradientTransformation` by name."""
    return lambda optimizer: OPTIMIZERS.add(name, optimizer)


def register_schedule(name: str) -> Callable[[ScheduleOf], ScheduleOf]:
    """Registers `(config, steps_per_epoch) -> (step -> learning rate)` by name.

    The function raises `UserError` for invalid settings; it is also called to check a config.
    """
    return lambda schedule: SCHEDULES.add(name, schedule)


def learning_rate(config: ConfigDict, steps_per_epoch: int) -> Schedule:
    """`config.optimizer`'s learning rate as a function of the step.

    Raises:
      UserError: an unknown schedule or invalid settings.
    """
    settings = config.optimizer
    schedule = SCHEDULES[settings.schedule](config, steps_per_epoch)
    if not settings.warm_up_epochs:
        return schedule
    return schedules.warm_up(
        schedule,
        settings.learning_rate,
        epochs=settings.warm_up_epochs,
        steps_per_epoch=steps_per_epoch,
    )


def create(config: ConfigDict, steps_per_epoch: int) -> optax.GradientTransformation:
    """The optimizer that `config.optimizer` names.

    With `config.optimizer.clip_value`, the entries of gradients are first clipped to this size;
    with `clip_norm`, gradients are then clipped to this global norm.

    Raises:
      UserError: an unknown optimizer or schedule, or invalid settings.
    """
    settings = config.optimizer
    tx = OPTIMIZERS[settings.name](settings, learning_rate(config, steps_per_epoch))
    clips = []
    if settings.clip_value:
        clips.append(optax.clip(settings.clip_value))
    if settings.clip_norm:
        clips.append(optax.clip_by_global_norm(settings.clip_norm))
    return optax.chain(*clips, tx) if clips else tx


def check(config: ConfigDict) -> None:
    """Raises `UserError` if `config.optimizer` is invalid; nothing is computed."""
    create(config, steps_per_epoch=1)


def matrices(params: Any) -> Any:
    """A mask that is True for parameters of two or more axes: not for biases and norms."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def decay_mask(settings: ConfigDict, usual: str) -> Callable[[Any], Any] | None:
    """The mask of weight decay, a function of the parameters, or None for all of them.

    Args:
      settings: `config.optimizer`.
      usual: 'all' or 'matrices', what `config.optimizer.decayed=''` stands for.
    """
    return matrices if (settings.decayed or usual) == "matrices" else None


@register_optimizer("sgd")
def sgd(settings: ConfigDict, learning_rate: Schedule) -> optax.GradientTransformation:
    """SGD with momentum as in PyTorch, with weight decay added to the gradient before momentum.

    Uses `momentum`, `nesterov`, `weight_decay` and `decayed`, by default all parameters.
    """
    return optax.chain(
        optax.add_decayed_weights(settings.weight_decay, mask=decay_mask(settings, "all")),
        optax.sgd(learning_rate, momentum=settings.momentum or None, nesterov=settings.nesterov),
    )


@register_optimizer("adamw")
def adamw(settings: ConfigDict, learning_rate: Schedule) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter 2019, algorithm 2), as PyTorch's.

    Uses `beta1`, `beta2`, `epsilon`, `weight_decay`, which is multiplied by the learning rate, and
    `decayed`, by default all parameters, as in the algorithm.
    """
    return optax.adamw(
        learning_rate,
        b1=settings.beta1,
        b2=settings.beta2,
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
        mask=decay_mask(settings, "all"),
    )


@register_optimizer("lamb")
def lamb(settings: ConfigDict, learning_rate: Schedule) -> optax.GradientTransformation:
    """LAMB (You et al. 2020, algorithm 2).

    Uses `beta1`, `beta2`, `epsilon`, `weight_decay` and `decayed`. As in the authors' code, biases
    and the parameters of norms are not scaled by the trust ratio nor, by default, decayed.
    """
    return optax.chain(
        optax.scale_by_adam(b1=settings.beta1, b2=settings.beta2, eps=settings.epsilon),
        optax.add_decayed_weights(settings.weight_decay, mask=decay_mask(settings, "matrices")),
        optax.masked(optax.scale_by_trust_ratio(), matrices),
        optax.scale_by_learning_rate(learning_rate),
    )


@register_optimizer("lars")
def lars(settings: ConfigDict, learning_rate: Schedule) -> optax.GradientTransformation:
    """LARS (You et al. 2017, algorithm 1).

    Uses `momentum`, `nesterov`, `trust_coefficient`, `weight_decay` and `decayed`. As is usual with
    it, biases and the parameters of norms are not scaled by the trust ratio nor, by default,
    decayed.
    """
    return optax.lars(
        learning_rate,
        weight_decay=settings.weight_decay,
        weight_decay_mask=decay_mask(settings, "matrices") or True,
        trust_coefficient=settings.trust_coefficient,
        trust_ratio_mask=matrices,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
    )


@register_schedule("cosine")
def _cosine(config: ConfigDict, steps_per_epoch: int) -> Schedule:
    base = config.optimizer.learning_rate
    return schedules.cosine(base, epochs=config.epochs, steps_per_epoch=steps_per_epoch)


@register_schedule("multistep")
def _multistep(config: ConfigDict, steps_per_epoch: int) -> Schedule:
    settings = config.optimizer
    try:
        return schedules.multistep(
            settings.learning_rate,
            milestones=settings.milestones,
            factors=settings.factors,
            steps_per_epoch=steps_per_epoch,
        )
    except ValueError as error:
        raise UserError(f"config.optimizer.milestones / factors: {error}") from error


@register_schedule("sgdr")
def _sgdr(config: ConfigDict, steps_per_epoch: int) -> Schedule:
    settings = config.optimizer
    if settings.period < 1:
        raise UserError("config.optimizer.period must be positive with schedule 'sgdr'")
    return schedules.sgdr(
        settings.learning_rate, period=settings.period, steps_per_epoch=steps_per_epoch
    )


@register_schedule("poly")
def _poly(config: ConfigDict, steps_per_epoch: int) -> Schedule:
    settings = config.optimizer
    steps = (config.epochs - settings.warm_up_epochs) * steps_per_epoch
    return schedules.poly(settings.learning_rate, steps=max(steps, 1), power=settings.power)


@register_schedule("constant")
def _constant(config: ConfigDict, steps_per_epoch: int) -> Schedule:
    base = config.optimizer.learning_rate
    return schedules.multistep(base, milestones=(), factors=(), steps_per_epoch=steps_per_epoch)
