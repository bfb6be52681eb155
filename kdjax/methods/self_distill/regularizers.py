"""Methods of one pass over plain batches: regularized labels, logits and classifiers.

Networks of the cohort learn each for itself, with the sum of their losses. All report
'cross_entropy' of the labels; where the loss is another function, that is 'loss'.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.errors import UserError
from kdjax.methods import base
from kdjax.methods.self_distill.settings import check_form, check_share, check_temperature
from kdjax.models import Cohort, Outputs

# (a network's outputs, labels [B]) -> [B]
_Loss = Callable[[Outputs, jax.Array], jax.Array]


def label_smoothing(cohort: Cohort, *, smoothing: float, form: str) -> base.Method:
    """Cross entropy of smoothed labels, `losses.label_smoothing`.

    Args:
      cohort: the networks.
      smoothing: what the labels give away, in [0, 1).
      form: 'paper' or 'library'.

    Raises:
      UserError: unknown form, or `smoothing` out of range.
    """
    check_form("label_smoothing", form)
    check_share("label_smoothing", "smoothing", smoothing)

    def smoothed(outputs, labels):
        return losses.label_smoothing(outputs.logits, labels, smoothing=smoothing, form=form)

    return _instead_of_cross_entropy(cohort, smoothed)


def focal(cohort: Cohort, *, gamma: float) -> base.Method:
    """The focal loss, `losses.focal`.

    Args:
      cohort: the networks.
      gamma: at least 0.

    Raises:
      UserError: negative `gamma`.
    """
    if gamma < 0:
        raise UserError(f"config.self_distill.focal.gamma={gamma}: must not be negative")
    return _instead_of_cross_entropy(
        cohort, lambda outputs, labels: losses.focal(outputs.logits, labels, gamma=gamma)
    )


def max_entropy(cohort: Cohort, *, weight: float, form: str) -> base.Method:
    """Cross entropy plus `weight` times `losses.confidence_penalty`, reported as that.

    Args:
      cohort: the networks.
      weight: of the negative entropy.
      form: 'paper' or 'library'.

    Raises:
      UserError: unknown form.
    """
    check_form("max_entropy", form)

    def penalty(outputs, labels):
        del labels
        return losses.confidence_penalty(outputs.logits, form=form)

    return _beside_cross_entropy(cohort, "confidence_penalty", penalty, 1.0, weight)


def tf_kd(
    cohort: Cohort, *, weight: float, smoothing: float, temperature: float, form: str
) -> base.Method:
    """Cross entropy and `losses.tf_kd`, reported as 'distillation'.

    In the paper's form `(1 - weight) CE + weight L`, in the library's `CE + weight L`, where
    Self-KD-Lib has a weight of 1.

    Args:
      cohort: the networks.
      weight: alpha of the paper, in [0, 1) in its form.
      smoothing: what the designed teacher gives to the wrong classes, in [0, 1).
      temperature: T > 0.
      form: 'paper' or 'library'.

    Raises:
      UserError: unknown form, or a setting out of range.
    """
    check_form("tf_kd", form)
    check_share("tf_kd", "smoothing", smoothing)
    check_temperature("tf_kd", temperature)
    paper = form == "paper"
    if paper:
        check_share("tf_kd", "weight", weight)

    def taught(outputs, labels):
        return losses.tf_kd(
            outputs.logits, labels, smoothing=smoothing, temperature=temperature, form=form
        )

    label_weight = 1.0 - weight if paper else 1.0
    return _beside_cross_entropy(cohort, "distillation", taught, label_weight, weight)


def virtual_softmax(cohort: Cohort, *, form: str) -> base.Method:
    """Cross entropy with a virtual class among the others, `losses.virtual_softmax`.

    Networks are evaluated without the virtual class.

    Args:
      cohort: the networks.
      form: 'paper': classifiers have no bias; it is in the parameters, where it is 0 and stays so.
        'library': they keep it.

    Raises:
      UserError: unknown form.
    """
    check_form("virtual_softmax", form)
    prepare = _without_bias if form == "paper" else lambda params: params

    def init(key, images):
        params, model_state = base.init_cohort(cohort, key, images)
        return prepare(params), model_state

    def loss(params, model_state, batch, key):
        del key
        params, labels = prepare(params), batch["label"]
        outputs, model_state = base.train_outputs(cohort, params, model_state, batch["image"])
        _, metrics = base.classification(outputs, labels)
        total = 0.0
        for i, each in enumerate(outputs):
            kernel = params["cohort"][f"network_{i}"]["classifier"]["kernel"]
            values = losses.virtual_softmax(each.logits, each.embedding, kernel, labels)
            total += jnp.mean(values)
        return total, (model_state, metrics)

    def predict(params, model_state, images):
        return base.predict_cohort(cohort, prepare(params), model_state, images)

    return base.Method(init=init, loss=loss, predict=predict)


def _without_bias(params: base.Params) -> base.Params:
    """The parameters with zeros for every classifier's bias, which gets no gradient then."""

    def of_network(network):
        classifier = network["classifier"]
        bias = jnp.zeros_like(classifier["bias"])
        return network | {"classifier": classifier | {"bias": bias}}

    networks = {
        name: of_network(each) if "classifier" in each else each  # a shared trunk has none
        for name, each in params["cohort"].items()
    }
    return params | {"cohort": networks}


def _instead_of_cross_entropy(cohort: Cohort, function: _Loss) -> base.Method:
    """A method whose only loss is `function`."""
    return _method(cohort, lambda total, outputs, labels: (_sum(function, outputs, labels), {}))


def _beside_cross_entropy(
    cohort: Cohort, name: str, function: _Loss, label_weight: float, weight: float
) -> base.Method:
    """A method of cross entropy and `function`, whose sum over networks is reported as `name`."""

    def combine(total, outputs, labels):
        value = _sum(function, outputs, labels)
        return label_weight * total + weight * value, {name: value}

    return _method(cohort, combine)


def _method(cohort: Cohort, combine) -> base.Method:
    """`combine(cross entropy, outputs, labels) -> loss, further metrics`, of plain batches."""

    def loss(params, model_state, batch, key):
        del key
        labels = batch["label"]
        outputs, model_state = base.train_outputs(cohort, params, model_state, batch["image"])
        total, metrics = base.classification(outputs, labels)
        total, further = combine(total, outputs, labels)
        return total, (model_state, metrics | further)

    return base.Method(
        init=functools.partial(base.init_cohort, cohort),
        loss=loss,
        predict=functools.partial(base.predict_cohort, cohort),
        logits_only=True,
    )


def _sum(function: _Loss, outputs: tuple[Outputs, ...], labels: jax.Array) -> jax.Array:
    """The mean over images, summed over networks."""
    return sum(jnp.mean(function(each, labels)) for each in outputs)
