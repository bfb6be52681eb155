"""Mutual contrastive learning, supervised (Yang et al., AAAI 2022, arXiv 2104.12565)."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.methods import base
from kdjax.methods.registry import DataNeed, register
from kdjax.models import Cohort, Outputs, layers
from kdjax.models.outputs import outputs_of
from kdjax.numerics import accumulation_dtype, unit
from kdjax.settings import setting


class ProjectionHead(nn.Module):
    """`[B, D] -> [B, features]` unit vectors: linear, ReLU, linear, divided by their length.

    With one layer, linear only.
    """

    features: int
    layers: int = 2

    @nn.compact
    def __call__(self, embedding: jax.Array) -> jax.Array:
        dtype = accumulation_dtype(embedding.dtype)
        x = embedding
        if self.layers > 1:
            x = layers.dense(x.shape[-1], self.features, dtype=dtype, name="hidden")(x)
            x = nn.relu(x)
        return unit(layers.dense(x.shape[-1], self.features, dtype=dtype, name="output")(x))


@dataclasses.dataclass(frozen=True)
class MutualContrastSettings:
    """What MCL and L-MCL set alike."""

    alpha: float = setting(0.1, "weight of the vanilla contrastive loss (VCL)", at_least=0)
    beta: float = setting(0.1, "weight of the interactive contrastive loss (ICL)", at_least=0)
    gamma: float = setting(1.0, "weight of soft VCL", at_least=0)
    lam: float = setting(1.0, "weight of soft ICL (lambda)", at_least=0)
    temperature: float = setting(
        0.1, "tau of the contrastive distributions; 0.07 on ImageNet", above=0
    )
    kd_temperature: float = setting(
        3.0, "T of the soft terms and of logit distillation (official code)", above=0
    )
    projection_features: int = setting(128, "length of the contrasted vectors", at_least=1)


@dataclasses.dataclass(frozen=True)
class Mcl(MutualContrastSettings):
    """`config.mcl`."""

    logit_distillation: str = setting(
        "none",
        "from the cohort's mean logits, in the official form 'cifar' (two networks both learn, of "
        "more only the last; the mean is a constant) or 'imagenet' (the last learns, and gradients "
        "reach the mean)",
        choices=("none", "cifar", "imagenet"),
    )


@register(
    "mcl",
    settings=Mcl,
    networks=2,
    data={"images_per_class": DataNeed(2, reason="contrasts images of one class within a batch")},
    source="Yang et al., AAAI 2022, arXiv 2104.12565",
    paper="ResNet-32 70.91; two 72.96, four 74.04",
)
def mcl(cohort: Cohort, settings: Mcl, *, axis_name: str | None = None) -> base.Method:
    """Cross entropy + alpha VCL + beta ICL + gamma soft VCL + lam soft ICL (+ logit distillation).

    Each network has a projection head on its embedding; the heads are trained with the networks and
    not used for prediction. The images of a batch are one another's contrast, so every class in a
    batch should come at least twice (`config.data.images_per_class`).

    Args:
      cohort: two networks or more.
      settings: weights and temperatures; the paper's by default.
      axis_name: the mapped device axis, over which contrast is gathered.

    Raises:
      UserError: fewer than two networks, or a setting out of range.
    """
    head = ProjectionHead(settings.projection_features)

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        del key
        outputs, model_state = base.train_outputs(cohort, params, model_state, batch["image"])
        total, metrics = base.classification(outputs, batch["label"])
        terms = losses.mutual_contrast(
            projected(head, params, outputs),
            batch["label"],
            temperature=settings.temperature,
            kd_temperature=settings.kd_temperature,
            axis_name=axis_name,
        )
        contrast, contrast_metrics = weighted(terms, settings)
        distillation, distillation_metrics = distilled(outputs, settings)
        total += contrast + distillation
        return total, (model_state, metrics | contrast_metrics | distillation_metrics)

    init = functools.partial(init_with_heads, cohort, head)
    return base.cohort_method(cohort, loss, init=init)


def init_with_heads(
    cohort: Cohort, head: ProjectionHead, key: jax.Array, images: jax.Array
) -> tuple[base.Params, base.ModelState]:
    """`base.init_cohort`, and under 'heads' the parameters of a projection head per network."""
    cohort_key, *head_keys = jax.random.split(key, len(cohort.networks) + 1)
    params, model_state = base.init_cohort(cohort, cohort_key, images)
    outputs, _ = jax.eval_shape(
        functools.partial(base.train_outputs, unsynchronized(cohort)), params, model_state, images
    )
    heads = {
        f"head_{i}": head.init(head_key, jnp.zeros(output.embedding.shape, jnp.float32))["params"]
        for i, (head_key, output) in enumerate(zip(head_keys, outputs, strict=True))
    }
    return params | {"heads": heads}, model_state


def projected(
    head: ProjectionHead, params: base.Params, outputs: Sequence[Outputs]
) -> list[jax.Array]:
    """The unit vectors `[B, features]` of every network's embedding."""
    return [
        outputs_of(head, {"params": params["heads"][f"head_{i}"]}, output.embedding)
        for i, output in enumerate(outputs)
    ]


def weighted(terms: losses.MutualContrast, settings: Any) -> tuple[jax.Array, base.Metrics]:
    """The terms' means over images, weighted by `settings` and summed, and each by its name."""
    means = {name: jnp.mean(value) for name, value in terms._asdict().items()}
    total = settings.alpha * means["vcl"] + settings.beta * means["icl"]
    total += settings.gamma * means["soft_vcl"] + settings.lam * means["soft_icl"]
    return total, means


def distilled(outputs: Sequence[Outputs], settings: Mcl) -> tuple[jax.Array | float, base.Metrics]:
    """The logit distillation that `settings` ask for, and its metric; 0 and none without."""
    if settings.logit_distillation == "none":
        return 0.0, {}
    logits = [output.logits for output in outputs]
    value = distill_logits(logits, settings.logit_distillation, settings.kd_temperature)
    return jnp.mean(value), {"logit_distillation": jnp.mean(value)}


def unsynchronized(cohort: Cohort) -> Cohort:
    """The same cohort without collectives, to be traced outside the device map."""
    return cohort.clone(
        networks=tuple(network.clone(axis_name=None) for network in cohort.networks)
    )


def distill_logits(logits: Sequence[jax.Array], form: str, temperature: float) -> jax.Array:
    """`[B]`: distillation from the mean logits in the official form 'cifar' or 'imagenet'."""
    all_learn = form == "cifar" and len(logits) == 2
    return losses.distill_from_mean(
        logits,
        temperature=temperature,
        students=None if all_learn else [len(logits) - 1],
        stop_teacher=form == "cifar",
    )
