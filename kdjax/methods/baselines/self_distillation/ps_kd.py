"""PS-KD: labels softened by the network's predictions of the previous epoch."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from kdjax import losses, numerics
from kdjax.losses.global_batch import gathered
from kdjax.methods import base
from kdjax.methods.registry import LOGITS, Clock, register
from kdjax.models import Cohort
from kdjax.settings import setting


@dataclasses.dataclass(frozen=True)
class PsKd:
    """`config.ps_kd`."""

    alpha: float = setting(0.8, "what the past counts in the last epoch", at_least=0, at_most=1)


@register(
    "ps_kd",
    settings=PsKd,
    family="self_distill",
    reads=LOGITS,
    source="Kim et al., ICCV 2021, arXiv 2006.12000",
    paper="ResNet-18 79.31 (Self-KD-Lib)",
)
def ps_kd(
    cohort: Cohort, settings: PsKd, *, clock: Clock, axis_name: str | None = None
) -> base.Method:
    """Progressive self-knowledge distillation (PS-KD), `losses.ps_kd`.

    In epoch t = 0, 1, ... the past counts `alpha (t + 1) / epochs`. What a network predicts of an
    image in training is remembered until the image comes again: 4 bytes per image and class for
    each network, as part of the method's state and of checkpoints. In the first epoch, and for
    images that the epochs before left out of their last, incomplete batch, labels are hard.

    Networks of the cohort learn each for itself, from their own past. Reported are the loss as
    'soft_cross_entropy', and 'alpha' of the epoch.

    Args:
      cohort: the networks.
      settings: see `PsKd`.
      clock: the run's images, steps per epoch and epochs.
      axis_name: the mapped device axis. Every device remembers the images of all.
    """

    def init(key: jax.Array, images: jax.Array) -> tuple[base.Params, base.ModelState]:
        params, model_state = base.init_cohort(cohort, key, images)
        nothing = {
            f"network_{i}": jnp.zeros((clock.images, network.num_classes), jnp.float32)
            for i, network in enumerate(cohort.networks)
        }
        return params, model_state | {base.MEMORY: nothing}

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        del key
        labels, index = batch["label"], batch["index"]
        outputs, model_state = base.train_outputs(cohort, params, model_state, batch["image"])
        _, metrics = base.classification(outputs, labels)
        epoch = batch["step"] // clock.steps_per_epoch
        weight = settings.alpha * (epoch + 1) / clock.epochs
        means, remembered = [], {}
        for name, output in zip(model_state[base.MEMORY], outputs, strict=True):
            memory = model_state[base.MEMORY][name]
            past = recall(memory, index, labels, epoch)
            means.append(jnp.mean(losses.ps_kd(output.logits, labels, past, alpha=weight)))
            remembered[name] = remember(memory, index, output.logits, axis_name=axis_name)
        total = numerics.total(means)
        metrics |= {"soft_cross_entropy": total, "alpha": weight}
        return total, (model_state | {base.MEMORY: remembered}, metrics)

    return base.cohort_method(cohort, loss, init=init)


def recall(
    memory: jax.Array, index: jax.Array, labels: jax.Array, epoch: int | jax.Array
) -> jax.Array:
    """The latest predictions of images, or one-hot labels where there are none.

    Args:
      memory: `[images, N]` probabilities, zeros for images that were not seen.
      index: `[B]` the images' numbers.
      labels: `[B]` their classes.
      epoch: from 0. In the first one all images count as not seen.

    Returns:
      `[B, N]` probabilities.
    """
    past = jnp.asarray(memory)[index]
    has_prediction = (epoch > 0) & (past.sum(axis=-1, keepdims=True) > 0)
    return jnp.where(
        has_prediction, past, jax.nn.one_hot(labels, memory.shape[-1], dtype=past.dtype)
    )


def remember(
    memory: jax.Array, index: jax.Array, logits: jax.Array, *, axis_name: str | None = None
) -> jax.Array:
    """The memory after this step.

    Args:
      memory: `[images, N]`.
      index: `[B]` the images' numbers, different from each other.
      logits: `[B, N]`, of which the probabilities are remembered.
      axis_name: the mapped device axis. With it, images of all devices are remembered, so that the
        memory is the same on all of them. None means one device.
    """
    dtype = jnp.promote_types(logits.dtype, jnp.float32)
    probabilities = jax.nn.softmax(jax.lax.stop_gradient(logits).astype(dtype), axis=-1)
    if axis_name is not None:
        index, probabilities = gathered((index, probabilities), axis_name)
    return jnp.asarray(memory).at[index].set(probabilities.astype(memory.dtype))
