"""An exponential moving average of what any method trains, evaluated beside it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.methods import base
from kdjax.settings import setting

# Where the average is in a method's state, and what its predictions are named after.
EMA = "ema"


@dataclasses.dataclass(frozen=True)
class Ema:
    """`config.ema`: a moving average of all parameters and of BatchNorm's statistics."""

    decay: float = setting(
        0.0,
        "part of the average that a step keeps, 0.999 for instance; 0: no average",
        below=1,
        at_least=0,
    )
    warm_up: bool = setting(
        True, "step t, from 0, keeps min(decay, (1 + t) / (10 + t)), to forget the initial weights"
    )


def averaged(method: base.Method, settings: Ema) -> base.Method:
    """A method that also keeps an exponential moving average of what it trains.

    After every step, `average = decay * average + (1 - decay) * value`, of all parameters and of
    BatchNorm's running statistics. The average changes nothing in training. What the method
    predicts is predicted with the average as well, as 'ema/NAME'.

    Source: Polyak and Juditsky 1992; the warm-up is that of TensorFlow's
    `ExponentialMovingAverage` with `num_updates`.

    Args:
      method: the method; it is returned unchanged for a `decay` of 0.
      settings: `config.ema`.
    """
    if not settings.decay:
        return method

    def init(key: jax.Array, images: jax.Array) -> tuple[base.Params, base.ModelState]:
        params, model_state = method.init(key, images)
        average = {"params": params, "batch_stats": model_state.get("batch_stats", {})}
        return params, model_state | {EMA: {base.MEMORY: average}}

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        average, model_state = _split(model_state)
        total, (model_state, metrics) = method.loss(params, model_state, batch, key)
        return total, (model_state | {EMA: {base.MEMORY: average}}, metrics)

    def after_update(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.ModelState:
        average, model_state = _split(model_state)
        if method.after_update is not None:
            model_state = method.after_update(params, model_state, batch, key)
        values = {"params": params, "batch_stats": model_state.get("batch_stats", {})}
        keep = _decay(settings, batch["step"])
        average = jax.tree.map(
            lambda a, x: (keep * a + (1 - keep) * x).astype(a.dtype), average, values
        )
        return model_state | {EMA: {base.MEMORY: average}}

    def both(function: base.Predict | None) -> base.Predict | None:
        if function is None:
            return None

        def results(
            params: base.Params, model_state: base.ModelState, images: Any
        ) -> dict[str, Any]:
            predicted = function(params, _split(model_state)[1], images)
            means = function(*_averages(model_state), images)
            return predicted | {f"{EMA}/{name}": result for name, result in means.items()}

        return results

    def variables(params: base.Params, model_state: base.ModelState, index: int) -> base.Variables:
        return method.variables(params, _split(model_state)[1], index)

    def averaged_variables(
        params: base.Params, model_state: base.ModelState, index: int
    ) -> base.Variables:
        del params
        return method.variables(*_averages(model_state), index)

    return method._replace(
        init=init,
        loss=loss,
        after_update=after_update,
        predict=both(method.predict),
        embeddings=both(method.embeddings),
        variables=variables,
        averaged_variables=averaged_variables,
    )


def _split(model_state: Any) -> tuple[Any, Any]:
    """The average, and the state of the method without it."""
    rest = {name: tree for name, tree in model_state.items() if name != EMA}
    return model_state[EMA][base.MEMORY], rest


def _averages(model_state: Any) -> tuple[Any, Any]:
    """The averaged parameters, and the method's state with averaged statistics."""
    average, rest = _split(model_state)
    if "batch_stats" in rest:
        rest |= {"batch_stats": average["batch_stats"]}
    return average["params"], rest


def _decay(settings: Ema, step: jax.Array) -> jax.Array:
    decay = jnp.float32(settings.decay)
    if not settings.warm_up:
        return decay
    step = step.astype(jnp.float32)
    return jnp.minimum(decay, (1 + step) / (10 + step))
