"""The training state, and the pure training and evaluation steps."""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kdjax.methods import CONSTANTS, MEMORY, Method, base
from kdjax.methods.base import Batch, Metrics
from kdjax.methods.evaluation import Evaluation
from kdjax.parallel import AXIS, scan
from kdjax.tree import leaves


class TrainState(NamedTuple):
    """The state of training. `step` counts the updates."""

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any


# Gradients, the method's state, metrics, and the batch and key of `Method.after_update`.
Gradients = tuple[Any, Any, Metrics, tuple[Batch, jax.Array]]


def init_state(
    method: Method, tx: optax.GradientTransformation, key: jax.Array, image_shape: tuple[int, ...]
) -> TrainState:
    """The state before the first step."""
    params, model_state = method.init(key, jnp.zeros((2, *image_shape)))
    return TrainState(jnp.zeros((), jnp.int32), params, model_state, tx.init(params))


def step_batch(
    prepare: Callable[..., Any], seed: int | None = None, places: np.ndarray | None = None
) -> Callable[..., Any]:
    """The function `(constants, batch, step, device) -> batch, key` of one device.

    It returns the batch and the key that the `loss` of a method takes at a step. Augmentation is a
    function of `seed`, `step` and the image's position in the global batch, the key of `seed`,
    `step` and `device`.

    Args:
      prepare: the input function of training, `preprocessing.train_input`.
      seed: a seed; None where `constants` have its key data as 'seed', as `Feed.train_constants`.
      places: `Feed.places`; None where devices have contiguous parts of the global batch.
    """

    def one_batch(
        constants: Any, batch: Batch, step: jax.Array, device: jax.Array
    ) -> tuple[Batch, jax.Array]:
        if seed is None:
            constants = dict(constants)
            first = jax.random.wrap_key_data(constants.pop("seed"))
        else:
            first = jax.random.key(seed)
        key = jax.random.fold_in(first, step)
        augment_key, loss_key = jax.random.split(key)
        size = batch["index"].shape[0]
        positions = device * size + jnp.arange(size)
        if places is not None:
            positions = jnp.asarray(places)[positions]
        batch = prepare(constants, batch, augment_key, positions)
        return batch | {"step": step}, jax.random.fold_in(loss_key, device)

    return one_batch


def train_step(
    method: Method,
    tx: optax.GradientTransformation,
    prepare: Callable[..., Any],
    seed: int | None = None,
    *,
    micro_batches: int = 1,
    places: np.ndarray | None = None,
) -> Callable[..., Any]:
    """The per-device function `(state, constants, batches) -> state, metrics`.

    `batches` has a leading axis of K steps, as have the metrics, `[K]` per name. Gradients, batch
    statistics and metrics are averaged over the device axis `AXIS`.

    With several micro-batches, the method sees them one after the other, each with the statistics
    and memories that the one before it wrote; gradients and metrics are means over them, and the
    optimizer is called once. What a method relates within a batch, and the batch statistics of
    BatchNorm, are those of a micro-batch.

    Args:
      method: the training method.
      tx: its optimizer.
      prepare: the input function of training, `preprocessing.train_input`.
      seed: as of `step_batch`.
      micro_batches: `config.optimizer.accumulate`.
      places: `Feed.places`.
    """

    one_batch = step_batch(prepare, seed, places)
    gradients = _gradients(method)
    if micro_batches > 1:
        gradients = _accumulated(gradients, micro_batches)

    def one_step(constants: Any, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        batch, key = one_batch(constants, batch, state.step, jax.lax.axis_index(AXIS))
        grads, model_state, metrics, (batch, key) = gradients(
            state.params, state.model_state, batch, key
        )
        grads, model_state, metrics = _averaged(grads, model_state, metrics)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        if method.after_update is not None:
            model_state = method.after_update(params, model_state, batch, key)
        return TrainState(state.step + 1, params, model_state, opt_state), metrics

    def steps(state: TrainState, constants: Any, batches: Batch) -> tuple[TrainState, Metrics]:
        return scan(lambda state, batch: one_step(constants, state, batch), state, batches)

    return steps


def _gradients(method: Method) -> Callable[..., Any]:
    """`(params, model_state, batch, key) -> gradients, model_state, metrics, (batch, key)`.

    The last two are those that `Method.after_update` is given.
    """

    def gradients(params: Any, model_state: Any, batch: Batch, key: jax.Array) -> Gradients:
        gradient = jax.value_and_grad(method.loss, has_aux=True)
        (loss, (model_state, metrics)), grads = gradient(params, model_state, batch, key)
        return grads, model_state, {"loss": loss, **metrics}, (batch, key)

    return gradients


def _accumulated(gradients: Callable[..., Any], count: int) -> Callable[..., Any]:
    """`gradients` as means over `count` micro-batches; `after_update` is given the last of them."""

    def accumulated(params: Any, model_state: Any, batch: Batch, key: jax.Array) -> Gradients:
        whole = {"step": batch["step"]}
        parts = {name: array for name, array in batch.items() if name not in whole}
        parts = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), parts)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))

        def add(carry: tuple[Any, Any], turn: tuple[Batch, jax.Array]) -> tuple[Any, Metrics]:
            total, model_state = carry
            # Nothing of a micro-batch is computed before the gradients of the one before it.
            total, (part, part_key) = jax.lax.optimization_barrier((total, turn))
            grads, model_state, metrics, _ = gradients(params, model_state, part | whole, part_key)
            return (jax.tree.map(jnp.add, total, grads), model_state), metrics

        start = (jax.tree.map(jnp.zeros_like, params), model_state)
        (total, model_state), metrics = scan(add, start, (parts, keys))
        grads = jax.tree.map(lambda x: x / count, total)
        last, last_key = jax.tree.map(operator.itemgetter(-1), (parts, keys))
        metrics = jax.tree.map(lambda x: x.mean(0), metrics)
        return grads, model_state, metrics, (last | whole, last_key)

    return accumulated


def _averaged(grads: Any, model_state: Any, metrics: Any) -> tuple[Any, Any, Any]:
    """Means over devices, except of constants and memories, which are equal on all devices.

    These can be large, and rounding in the mean would change them.
    """
    state = leaves(model_state)
    per_device = {
        path: leaf for path, leaf in state.items() if not {CONSTANTS, MEMORY} & set(path.split("/"))
    }
    grads, per_device, metrics = jax.lax.pmean((grads, per_device, metrics), AXIS)
    merged = list((state | per_device).values())
    return grads, jax.tree.unflatten(jax.tree.structure(model_state), merged), metrics


def evaluation_step(
    method: Method, prepare: Callable[..., Any], num_classes: int
) -> Callable[..., Any]:
    """The per-device function `((params, model_state), constants, batches) -> sums`.

    The sums run over all images of the batches and all devices: 'count', and for each name that
    the method predicts 'NAME/SUM' of its `Method.evaluation`.

    Raises:
      ValueError: the method predicts nothing, or what cannot be measured by sums.
    """
    predict, evaluation = base.predictor(method), method.evaluation
    if not isinstance(evaluation, Evaluation):
        raise ValueError("the method is measured by rows: use `rows.prediction_rows_step`")

    def one_batch(variables: Any, constants: Any, batch: Batch) -> Metrics:
        params, model_state = variables
        images, labels = prepare(constants, batch)
        mask = batch["mask"]
        sums = {"count": mask.sum()}
        for name, logits in predict(params, model_state, images).items():
            measured = evaluation.sums(logits, labels, mask, num_classes)
            sums |= {f"{name}/{measure}": total for measure, total in measured.items()}
        return sums

    def batches_step(variables: Any, constants: Any, batches: Batch) -> Metrics:
        _, sums = scan(
            lambda _, batch: (None, one_batch(variables, constants, batch)), None, batches
        )
        return jax.lax.psum(jax.tree.map(lambda x: x.sum(0), sums), AXIS)

    return batches_step
