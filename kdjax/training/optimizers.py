"""From a config to a schedule and an optax chain."""

import optax
from ml_collections import ConfigDict

from kdjax.errors import UserError
from kdjax.training import learning_rate as schedules

SCHEDULES = ("cosine", "multistep", "sgdr", "constant")


def learning_rate(config: ConfigDict, steps_per_epoch: int) -> schedules.Schedule:
    """`config.optimizer`'s learning rate as a function of the step.

    Raises:
      UserError: unknown schedule, or settings that make none.
    """
    optimizer = config.optimizer
    base, clock = optimizer.learning_rate, {"steps_per_epoch": steps_per_epoch}
    if optimizer.schedule == "cosine":
        schedule = schedules.cosine(base, epochs=config.epochs, **clock)
    elif optimizer.schedule == "sgdr":
        if optimizer.period < 1:
            raise UserError("config.optimizer.period must be positive with schedule 'sgdr'")
        schedule = schedules.sgdr(base, period=optimizer.period, **clock)
    elif optimizer.schedule in ("multistep", "constant"):
        constant = optimizer.schedule == "constant"
        milestones = () if constant else optimizer.milestones
        factors = () if constant else optimizer.factors
        try:
            schedule = schedules.multistep(base, milestones=milestones, factors=factors, **clock)
        except ValueError as error:
            raise UserError(f"config.optimizer.milestones / factors: {error}") from error
    else:
        raise UserError(
            f"config.optimizer.schedule={optimizer.schedule!r} is unknown; "
            f"use one of {', '.join(SCHEDULES)}"
        )
    if optimizer.warm_up_epochs:
        return schedules.warm_up(schedule, base, epochs=optimizer.warm_up_epochs, **clock)
    return schedule


def create(config: ConfigDict, steps_per_epoch: int) -> optax.GradientTransformation:
    """SGD as PyTorch's: weight decay joins the gradient before momentum, Nesterov's form after."""
    optimizer = config.optimizer
    return optax.chain(
        optax.add_decayed_weights(optimizer.weight_decay),
        optax.sgd(
            learning_rate(config, steps_per_epoch),
            momentum=optimizer.momentum or None,
            nesterov=optimizer.nesterov,
        ),
    )
