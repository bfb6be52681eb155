"""Methods whose batches hold several views of an image, or several images of a class.

Networks of the cohort learn each for itself, with the sum of their losses.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.errors import UserError
from kdjax.methods import base
from kdjax.methods.self_distill.settings import check_form, check_share, check_temperature
from kdjax.models import Cohort


def cs_kd(cohort: Cohort, *, temperature: float, partners: int) -> base.Method:
    """CS-KD: `losses.cs_kd` between images and partners of the same class.

    Batches hold groups of 1 + K rows, an image and its partners. As in the authors' code, images
    and partners are two passes in training mode, so that BatchNorm's statistics are those of either
    alone and are updated twice; only the first sends gradients. Accuracies are the images'.

    Args:
      cohort: the networks.
      temperature: T > 0.
      partners: K >= 1.

    Raises:
      UserError: no partners, or a temperature that is not positive.
    """
    check_temperature("cs_kd", temperature)
    if partners < 1:
        raise UserError(f"method 'cs_kd' needs config.data.partners=1 or more (it is {partners})")

    def groups(x):
        """`[A * (1 + K), ...] -> [A, 1 + K, ...]`"""
        return x.reshape(-1, 1 + partners, *x.shape[1:])

    def loss(params, model_state, batch, key):
        del key
        images, labels = groups(batch["image"]), groups(batch["label"])[:, 0]
        outputs, model_state = base.train_outputs(cohort, params, model_state, images[:, 0])
        others = images[:, 1:].reshape(-1, *images.shape[2:])
        taught, model_state = base.train_outputs(
            cohort, jax.lax.stop_gradient(params), model_state, others
        )
        terms = _sum(
            losses.cs_kd(
                each.logits,
                other.logits.reshape(-1, partners, other.logits.shape[-1]),
                labels,
                temperature=temperature,
            )
            for each, other in zip(outputs, taught, strict=True)
        )
        _, metrics = base.classification(outputs, labels)
        return sum(terms.values()), (model_state, metrics | terms)

    def inputs(batch, key):
        shown = base.plain_inputs(batch, key)
        group = ("image", *(f"partner {k}" for k in range(1, 1 + partners)))
        return shown._replace(notes=group * (len(shown.labels) // len(group)))

    return _method(cohort, loss, inputs, logits_only=True)


def bake(
    cohort: Cohort, *, temperature: float, omega: float, form: str, axis_name: str | None = None
) -> base.Method:
    """BAKE: cross entropy, and `losses.bake` among all images of the global batch.

    Where partners stand in a batch does not matter: all rows learn, and from all others.

    Args:
      cohort: the networks.
      temperature: T > 0.
      omega: how far predictions are propagated, in [0, 1).
      form: 'paper' or 'library'.
      axis_name: the mapped device axis, over which predictions are gathered.

    Raises:
      UserError: unknown form, or a setting out of range.
    """
    check_form("bake", form)
    check_share("bake", "omega", omega)
    check_temperature("bake", temperature)

    def loss(params, model_state, batch, key):
        del key
        outputs, model_state = base.train_outputs(cohort, params, model_state, batch["image"])
        total, metrics = base.classification(outputs, batch["label"])
        ensemble = functools.partial(
            losses.bake, temperature=temperature, omega=omega, form=form, axis_name=axis_name
        )
        distillation = sum(jnp.mean(ensemble(each.logits, each.embedding)) for each in outputs)
        return total + distillation, (model_state, metrics | {"distillation": distillation})

    return _method(cohort, loss, base.plain_inputs)


def ddgsd(
    cohort: Cohort,
    *,
    temperature: float,
    feature_weight: float,
    form: str,
    axis_name: str | None = None,
) -> base.Method:
    """DDGSD: `losses.ddgsd` between two views of every image, which are in one batch.

    Accuracies are those of the views' mean logits.

    Args:
      cohort: the networks.
      temperature: T > 0.
      feature_weight: of the discrepancy of features.
      form: 'paper' or 'library'.
      axis_name: the mapped device axis, over which features are averaged.

    Raises:
      UserError: unknown form or a temperature that is not positive; or, by `loss` and `inputs`,
        images that do not come in two views.
    """
    check_form("ddgsd", form)
    check_temperature("ddgsd", temperature)

    def inputs(batch, key):
        shown = base.plain_inputs(batch, key)
        views = _two_views(batch)
        labels, weights = (jnp.repeat(each, 2, axis=0) for each in (shown.labels, shown.weights))
        notes = ("view 1", "view 2") * len(views)
        return base.Inputs(views.reshape(-1, *views.shape[2:]), labels, weights, notes)

    def loss(params, model_state, batch, key):
        labels, shown = batch["label"], inputs(batch, key)
        outputs, model_state = base.train_outputs(cohort, params, model_state, shown.images)
        pairs = [
            (each.logits.reshape(-1, 2, each.logits.shape[-1]), each.embedding) for each in outputs
        ]
        terms = _sum(
            losses.ddgsd(
                logits,
                embedding.reshape(-1, 2, embedding.shape[-1]),
                labels,
                temperature=temperature,
                form=form,
                axis_name=axis_name,
            )
            for logits, embedding in pairs
        )
        total = terms["cross_entropy"] + terms["distillation"]
        total += feature_weight * terms["discrepancy"]
        accuracies = {
            f"network_{i}/accuracy": jnp.mean(logits.mean(axis=1).argmax(-1) == labels)
            for i, (logits, _) in enumerate(pairs)
        }
        return total, (model_state, accuracies | terms)

    return _method(cohort, loss, inputs)


def _two_views(batch: base.Batch) -> jax.Array:
    """`[B, 2, H, W, C]`"""
    views = batch.get("views", batch["image"][:, None])
    if views.shape[1] != 2:
        raise UserError(
            "method 'ddgsd' compares two views of each image; set config.data.views=2 "
            f"(it is {views.shape[1]})"
        )
    return views


def _sum(terms) -> dict[str, jax.Array]:
    """Means over images of named terms `[B]`, summed over networks."""
    networks = [each._asdict() for each in terms]
    return {name: sum(jnp.mean(each[name]) for each in networks) for name in networks[0]}


def _method(cohort: Cohort, loss, inputs, *, logits_only: bool = False) -> base.Method:
    return base.Method(
        init=functools.partial(base.init_cohort, cohort),
        loss=loss,
        predict=functools.partial(base.predict_cohort, cohort),
        inputs=inputs,
        logits_only=logits_only,
    )
