"""The state of training, the pure train step and the evaluation step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdjax import losses
from kdjax.methods import CONSTANTS, Method
from kdjax.parallel import AXIS, scan


class TrainState(NamedTuple):
    """All that training changes. `step` is the only clock."""

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any


def init_state(
    method: Method, tx: optax.GradientTransformation, key: jax.Array, image_shape: tuple[int, ...]
) -> TrainState:
    """The state before the first step."""
    params, model_state = method.init(key, jnp.zeros((2, *image_shape)))
    return TrainState(jnp.zeros((), jnp.int32), params, model_state, tx.init(params))


def train_step(method: Method, tx: optax.GradientTransformation, prepare, seed: int):
    """The per-device function `(state, constants, batches) -> state, metrics`.

    `batches` has a leading axis of K steps; metrics come back as `[K]` per name. Gradients, batch
    statistics and metrics are averaged over the device axis `AXIS`.
    """

    def one_step(constants, state, batch):
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        augment_key, loss_key = jax.random.split(key)
        device, size = jax.lax.axis_index(AXIS), batch["index"].shape[0]
        batch = prepare(constants, batch, augment_key, device * size + jnp.arange(size))
        gradient = jax.value_and_grad(method.loss, has_aux=True)
        (loss, (model_state, metrics)), grads = gradient(
            state.params, state.model_state, batch, jax.random.fold_in(loss_key, device)
        )
        # What never changes needs no averaging, and would drift by the rounding of it.
        constant = {CONSTANTS: model_state.pop(CONSTANTS)} if CONSTANTS in model_state else {}
        grads, model_state, metrics = jax.lax.pmean(
            (grads, model_state, {"loss": loss, **metrics}), AXIS
        )
        model_state |= constant
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, model_state, opt_state), metrics

    def steps(state, constants, batches):
        return scan(lambda state, batch: one_step(constants, state, batch), state, batches)

    return steps


def evaluation_step(method: Method, prepare, num_classes: int):
    """The per-device function `((params, model_state), constants, batches) -> sums`.

    The sums run over all images of the batches and all devices: 'count', and for each name that
    the method predicts 'NAME/top1', 'NAME/top5' (with more than 5 classes), 'NAME/cross_entropy'.
    """

    def one_batch(variables, constants, batch):
        images, labels = prepare(constants, batch)
        mask = batch["mask"]
        sums = {"count": mask.sum()}
        for name, logits in method.predict(*variables, images).items():
            own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
            rank = jnp.sum(~(logits <= own), axis=-1)  # so written, what is not finite is wrong
            sums[f"{name}/top1"] = jnp.sum(mask * (logits.argmax(-1) == labels))
            if num_classes > 5:
                sums[f"{name}/top5"] = jnp.sum(mask * (rank < 5))
            sums[f"{name}/cross_entropy"] = jnp.sum(mask * losses.cross_entropy(logits, labels))
        return sums

    def batches_step(variables, constants, batches):
        _, sums = scan(
            lambda _, batch: (None, one_batch(variables, constants, batch)), None, batches
        )
        return jax.lax.psum(jax.tree.map(jnp.sum, sums), AXIS)

    return batches_step
