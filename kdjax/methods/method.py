"""The type of a training method, and the types that its functions take and return."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from kdjax.methods.evaluation import CLASSIFICATION, Evaluation, RowEvaluation
from kdjax.models import PLAIN, Form, Part

# The part of a method's state that never changes: a frozen teacher.
CONSTANTS = "constants"
# What a method remembers of the training images and of earlier parameters, wherever it is in its
# state: every device writes down what all of them saw, so that devices need not agree on it after
# every step.
MEMORY = "memory"

Params = Any
ModelState = Any
Variables = dict[str, Any]
Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]

# The fields of `Method`, which explains them.
LossResult = tuple[jax.Array, tuple[ModelState, Metrics]]
Init = Callable[[jax.Array, jax.Array], tuple[Params, ModelState]]
Loss = Callable[[Params, ModelState, Batch, jax.Array], LossResult]
Predict = Callable[[Params, ModelState, Any], dict[str, Any]]
PickVariables = Callable[[Params, ModelState, int], Variables]

# Images as they are normalized for the students, `[B, H, W, C]`, to those for their teacher.
Renormalize = Callable[[jax.Array], jax.Array]


def unchanged(images: jax.Array) -> jax.Array:
    """The images themselves: students and teacher share their normalization."""
    return images


class Inputs(NamedTuple):
    """What the networks of a method are shown of a batch, in R rows.

    Attributes:
      images: `[R, H, W, C]`, normalized.
      labels: `[R, K]` classes.
      weights: `[R, K]`, how much each label counts.
      notes: captions of the rows; empty, or one per row.
    """

    images: jax.Array
    labels: jax.Array
    weights: jax.Array
    notes: Sequence[str] = ()


class EpochReport(NamedTuple):
    """What a method reports at the end of an epoch, besides the evaluation of its networks.

    Attributes:
      metrics: numbers by name, for the metrics files.
      other_params: further parameters to evaluate, by the prefix of their metrics' names.
      may_be_best: whether the checkpoint of this epoch may count as the run's best.
    """

    metrics: dict[str, float]
    other_params: dict[str, Params]
    may_be_best: bool


def plain_inputs(batch: Batch, key: jax.Array) -> Inputs:
    """The images of a batch as they are, with their labels."""
    del key
    labels = batch["label"][:, None]
    return Inputs(batch["image"], labels, jnp.ones(labels.shape, jnp.float32))


def network_variables(params: Params, model_state: ModelState, index: int) -> Variables:
    """The variables of network `index` of a cohort, what it shares with the others included."""
    collections = {"params": params["cohort"], "batch_stats": model_state["batch_stats"]}
    # What is shared is the trunk's, and has no name in common with a network's own.
    return {
        name: tree.get("trunk", {}) | tree.get(f"network_{index}", {})
        for name, tree in collections.items()
    }


class Method(NamedTuple):
    """A training method as three pure functions, as an optax transformation is two.

    Attributes:
      init: `(key, images [B, H, W, C]) -> params, model_state`. `model_state` holds all that
        changes but is not trained by the optimizer, and under `CONSTANTS` what never changes. The
        train step averages it over devices, but for `CONSTANTS` and what lies below a `MEMORY`.
      loss: `(params, model_state, batch, key) -> loss, (model_state, metrics)`. `batch` has 'image'
        float `[B, H, W, C]` normalized, 'label' int32 `[B]`, 'index' int32 `[B]`, 'step' int32
        `[]`; with several views of each image also 'views' `[B, V, H, W, C]`, and with partners the
        images of a class stand side by side (`config.data.views`, `partners`). The loss is the mean
        over this device's images; metrics are scalars.
      predict: `(params, model_state, images) -> {name: logits [B, N]}`, in evaluation mode. Joint
        logits of M transformed views of each image are `[B, M, N * M]`. None of a method that
        learns without labels. Images with objects are a `kdjax.data.preprocessing.Canvas`.
      embeddings: `(params, model_state, images) -> {name: [B, D]}`, in evaluation mode, of a method
        without `predict`: an image is given the class of its nearest training images.
      after_update: `(params, model_state, batch, key) -> model_state`, what is learned otherwise
        than by the optimizer, such as a meta network: called at the end of every step with the
        parameters after it, and the batch and key of `loss`. Arrays that it changes must come out
        equal on all devices, so it averages over the device axis itself. None: nothing.
      optimizer: what becomes of the config's optimizer, where a method trains some parameters in
        some steps only.
      inputs: `(batch, key) -> Inputs`, what `loss` shows its networks of this batch with this key,
        for people to look at; never traced.
      epoch_report: `(params, opt_state) -> EpochReport`, called with numpy arrays at the end of
        every epoch; or None.
      logits_only: whether `loss` reads nothing of the networks but their logits, so that channels
        inside may be taken out while they learn.
      form: what the method adds to every network of the config, such as branches.
      variables: `(params, model_state, index) -> {'params', 'batch_stats'}`, those of one network,
        in its form, without anything else that the method trains.
      parts: where in `params` the layers of networks are, by '/'-joined paths: what is pruned. A
        part may lack layers that are not among `params`. Empty where nothing can be pruned.
      averaged_variables: the same of their moving average, `methods.averaged`; None where there is
        no average.
      augment: what becomes of images that come with masks, in place of `config.data.augmentation`:
        `(keys [B], uint8 images [B, H, W, C], uint8 masks [B, H, W], int32 sizes [B, 2],
        fill [C]) -> images [B, H', W', C], masks [B, H', W']`, by the key of each image. Images
        are `sizes` large, from the upper left corner; `fill` is what is normalized to zero. `loss`
        finds the masks as batch['masks'], int32. None for methods that read no masks.
      evaluation: how what is predicted is measured. `predict` may return anything that its `sums`
        or `rows` read.
      draw: `(image, prediction, label, class_names) -> picture, caption`, of one test image, uint8
        `[H, W, C]`, with what was predicted of it, as numpy arrays; the label is the class, the
        mask, or (boxes `[n, 4]`, labels `[n]` from 1 on). None where nothing is drawn.
    """

    init: Init
    loss: Loss
    predict: Predict | None
    embeddings: Predict | None = None
    after_update: Callable[[Params, ModelState, Batch, jax.Array], ModelState] | None = None
    optimizer: Callable[[optax.GradientTransformation], optax.GradientTransformation] = lambda tx: (
        tx
    )
    inputs: Callable[[Batch, jax.Array], Inputs] = plain_inputs
    epoch_report: Callable[[Params, Any], EpochReport] | None = None
    logits_only: bool = False
    form: Form = PLAIN
    variables: PickVariables = network_variables
    parts: Mapping[str, Part] = MappingProxyType({})
    averaged_variables: PickVariables | None = None
    augment: Callable[..., tuple[jax.Array, jax.Array]] | None = None
    evaluation: Evaluation | RowEvaluation = CLASSIFICATION
    draw: Callable[[Any, Any, Any, Sequence[str]], tuple[Any, str]] | None = None


def predictor(method: Method) -> Predict:
    """`method.predict`.

    Raises:
      ValueError: the method learns without labels and has none.
    """
    if method.predict is None:
        raise ValueError("the method learns without labels: it has no `predict`")
    return method.predict


def embedder(method: Method) -> Predict:
    """`method.embeddings`.

    Raises:
      ValueError: the method has none.
    """
    if method.embeddings is None:
        raise ValueError("the method has no `embeddings`")
    return method.embeddings
