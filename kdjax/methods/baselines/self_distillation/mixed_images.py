"""Mixup, CutMix and manifold mixup: networks that learn mixed images with mixed labels.

All images of a device's batch are mixed by one `losses.Mixture`, drawn anew at every step. Networks
of the cohort see the same mixtures and learn each for itself. 'cross_entropy' is that of the mixed
labels, and an accuracy is mixed as they are: a hit counts as much as the label that was hit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from kdjax import losses, numerics
from kdjax.errors import UserError
from kdjax.losses import Mixture
from kdjax.methods import base
from kdjax.methods.registry import LOGITS, register
from kdjax.models import Cohort, Outputs
from kdjax.settings import setting

# `(images [B, H, W, C], key) -> images, mixture`
_Mix = Callable[[jax.Array, jax.Array], tuple[jax.Array, Mixture]]


@dataclasses.dataclass(frozen=True)
class Mixup:
    """`config.mixup`."""

    alpha: float = setting(0.4, "of the Beta distribution of lambda", above=0)


@register(
    "mixup",
    settings=Mixup,
    family="self_distill",
    reads=LOGITS,
    source="Zhang et al., ICLR 2018, arXiv 1710.09412",
    paper="ResNet-18 78.68 (Self-KD-Lib)",
)
def mixup(cohort: Cohort, settings: Mixup) -> base.Method:
    """Networks trained on `losses.mix` of images."""

    def mix(images: jax.Array, key: jax.Array) -> tuple[jax.Array, Mixture]:
        mixture = losses.draw_mixture(key, images.shape[0], alpha=settings.alpha)
        return losses.mix(images, mixture), mixture

    return _of_mixed_images(cohort, mix)


@dataclasses.dataclass(frozen=True)
class Cutmix:
    """`config.cutmix`."""

    alpha: float = setting(
        1.0, "of the Beta distribution from which a box's size is drawn", above=0
    )


@register(
    "cutmix",
    settings=Cutmix,
    family="self_distill",
    reads=LOGITS,
    source="Yun et al., ICCV 2019, arXiv 1905.04899",
    paper="ResNet-18 80.17 (Self-KD-Lib)",
)
def cutmix(cohort: Cohort, settings: Cutmix) -> base.Method:
    """Networks trained on images with a box of another image, `losses.cutmix`."""

    def mix(images: jax.Array, key: jax.Array) -> tuple[jax.Array, Mixture]:
        mixture_key, box_key = jax.random.split(key)
        mixture = losses.draw_mixture(mixture_key, images.shape[0], alpha=settings.alpha)
        return losses.cutmix(
            images, mixture, losses.draw_box(box_key, mixture.lam, images.shape[1:3])
        )

    return _of_mixed_images(cohort, mix)


@dataclasses.dataclass(frozen=True)
class ManifoldMixup:
    """`config.manifold_mixup`."""

    alpha: float = setting(2.0, "of the Beta distribution of lambda", above=0)


@register(
    "manifold_mixup",
    settings=ManifoldMixup,
    family="self_distill",
    reads=LOGITS,
    source="Verma et al., ICML 2019, arXiv 1806.05236",
)
def manifold_mixup(cohort: Cohort, settings: ManifoldMixup) -> base.Method:
    """Networks in which images are mixed on their way, before one of the stages.

    Which of the stages is drawn at every step, all being equally likely: of S stages, what is mixed
    is the end of the stem, or of stage 1 to S - 1. These are Self-KD-Lib's places; the paper's are
    the images themselves and the ends of the first stages.

    Args:
      cohort: networks of equally many stages.
      settings: see `ManifoldMixup`.

    Raises:
      UserError: networks have different numbers of stages.
    """
    stages = sorted({network.num_stages for network in cohort.networks})
    if len(stages) > 1:
        raise UserError(
            f"the networks of method 'manifold_mixup' have {' and '.join(map(str, stages))} "
            "stages; name networks with equally many in config.networks"
        )

    def draw(batch: base.Batch, key: jax.Array) -> tuple[Mixture, jax.Array]:
        mixture_key, place_key = jax.random.split(key)
        mixture = losses.draw_mixture(mixture_key, batch["label"].shape[0], alpha=settings.alpha)
        return mixture, jax.random.randint(place_key, (), 0, stages[0])

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        mixture, place = draw(batch, key)
        variables = {"params": params["cohort"], "batch_stats": model_state["batch_stats"]}
        outputs, updated = cohort.apply(
            variables,
            batch["image"],
            train=True,
            hidden=mixed_at(place, mixture),
            mutable=["batch_stats"],
        )
        total, metrics = _classification(outputs, batch["label"], mixture)
        return total, (model_state | updated, metrics)

    def inputs(batch: base.Batch, key: jax.Array) -> base.Inputs:
        mixture, place = draw(batch, key)
        where = f"stage {int(place)}" if int(place) else "the stem"
        shown = mixed_inputs(batch["image"], batch["label"], mixture)
        return shown._replace(notes=(f"mixed after {where}",) * len(shown.labels))

    return base.cohort_method(cohort, loss, inputs=inputs)


def mixed_at(place: jax.Array, mixture: Mixture) -> Callable[[int, jax.Array], jax.Array]:
    """What mixes feature maps at one place of a network, as `StagedNetwork` takes it for `hidden`.

    Args:
      place: `[]`, 0 for the end of the stem, k for that of stage k; it may be traced.
      mixture: of the images.
    """

    def hidden(number: int, x: jax.Array) -> jax.Array:
        # Everywhere else all is an image's own, so that one program does for all places.
        lam = jnp.where(place == number, mixture.lam, 1.0)
        return losses.mix(x, mixture._replace(lam=lam))

    return hidden


def mixed_inputs(images: jax.Array, labels: jax.Array, mixture: Mixture) -> base.Inputs:
    """Images `[B, H, W, C]`, each with its label and its partner's, `[B]` before they are mixed."""
    weights = jnp.stack([mixture.lam, 1 - mixture.lam]).astype(jnp.float32)
    both = jnp.stack([labels, jnp.asarray(labels)[mixture.order]], axis=1)
    return base.Inputs(images, both, jnp.broadcast_to(weights, both.shape))


def _of_mixed_images(cohort: Cohort, mix: _Mix) -> base.Method:
    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        images, mixture = mix(batch["image"], key)
        outputs, model_state = base.train_outputs(cohort, params, model_state, images)
        total, metrics = _classification(outputs, batch["label"], mixture)
        return total, (model_state, metrics)

    def inputs(batch: base.Batch, key: jax.Array) -> base.Inputs:
        images, mixture = mix(batch["image"], key)
        return mixed_inputs(images, batch["label"], mixture)

    return base.cohort_method(cohort, loss, inputs=inputs)


def _classification(
    outputs: Sequence[Outputs], labels: jax.Array, mixture: Mixture
) -> tuple[jax.Array, base.Metrics]:
    """`base.classification` for mixed labels."""
    total = numerics.total(
        jnp.mean(losses.mixed_cross_entropy(network_outputs.logits, labels, mixture))
        for network_outputs in outputs
    )
    metrics, others = {"cross_entropy": total}, jnp.asarray(labels)[mixture.order]
    for i, network_outputs in enumerate(outputs):
        predicted = network_outputs.logits.argmax(-1)
        own_accuracy, partners = jnp.mean(predicted == labels), jnp.mean(predicted == others)
        metrics[f"network_{i}/accuracy"] = mixture.lam * own_accuracy + (1 - mixture.lam) * partners
    return total, metrics
