"""Mutual contrastive learning, supervised (Yang et al., AAAI 2022, arXiv 2104.12565)."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.errors import UserError
from kdjax.methods import base
from kdjax.models import Cohort, layers
from kdjax.numerics import unit

LOGIT_DISTILLATION = ("none", "cifar", "imagenet")


class ProjectionHead(nn.Module):
    """`[B, D] -> [B, features]` unit vectors: linear, ReLU, linear, divided by their length."""

    features: int

    @nn.compact
    def __call__(self, embedding: jax.Array) -> jax.Array:
        dtype = layers.at_least_float32(embedding.dtype)
        x = layers.dense(embedding.shape[-1], self.features, dtype=dtype, name="hidden")(embedding)
        x = layers.dense(self.features, self.features, dtype=dtype, name="output")(nn.relu(x))
        return unit(x)


def mcl(
    cohort: Cohort,
    *,
    alpha: float,
    beta: float,
    gamma: float,
    lam: float,
    temperature: float,
    kd_temperature: float,
    projection_features: int,
    logit_distillation: str = "none",
    axis_name: str | None = None,
) -> base.Method:
    """Cross entropy + alpha VCL + beta ICL + gamma soft VCL + lam soft ICL (+ logit distillation).

    Each network has a projection head on its embedding; the heads are trained with the networks and
    not used for prediction. The images of a batch are one another's contrast, so every class in a
    batch should come at least twice (`config.data.images_per_class`).

    Args:
      cohort: two networks or more.
      alpha: weight of the vanilla contrastive loss (VCL). Paper: 0.1.
      beta: weight of the interactive contrastive loss (ICL). Paper: 0.1.
      gamma: weight of soft VCL. Paper: 1.
      lam: weight of soft ICL (lambda). Paper: 1.
      temperature: tau of the contrastive distributions. Paper: 0.1 on CIFAR, 0.07 on ImageNet.
      kd_temperature: T of the soft terms and of logit distillation. Official code: 3.
      projection_features: length of the contrasted vectors. Paper: 128.
      logit_distillation: 'none'; or distillation from the cohort's mean logits in the official
        forms, 'cifar' (two networks both learn, of more only the last; the mean is a constant) or
        'imagenet' (the last learns, and gradients reach the mean).
      axis_name: the mapped device axis, over which contrast is gathered.

    Raises:
      UserError: fewer than two networks, embeddings' heads ill-sized or an unknown option.
    """
    count = len(cohort.networks)
    if count < 2:
        raise UserError("method 'mcl' needs at least two networks in config.networks")
    if projection_features < 1:
        raise UserError(f"config.mcl.projection_features={projection_features} must be positive")
    if logit_distillation not in LOGIT_DISTILLATION:
        raise UserError(
            f"config.mcl.logit_distillation={logit_distillation!r} is unknown; "
            f"use one of {', '.join(LOGIT_DISTILLATION)}"
        )
    head = ProjectionHead(projection_features)

    def init(key, images):
        cohort_key, *head_keys = jax.random.split(key, count + 1)
        params, model_state = base.init_cohort(cohort, cohort_key, images)
        outputs, _ = jax.eval_shape(
            functools.partial(base.train_outputs, unsynchronized(cohort)),
            params,
            model_state,
            images,
        )
        heads = {
            f"head_{i}": head.init(head_key, jnp.zeros(each.embedding.shape, jnp.float32))["params"]
            for i, (head_key, each) in enumerate(zip(head_keys, outputs, strict=True))
        }
        return params | {"heads": heads}, model_state

    def loss(params, model_state, batch, key):
        del key
        outputs, model_state = base.train_outputs(cohort, params, model_state, batch["image"])
        total, metrics = base.classification(outputs, batch["label"])
        projections = [
            head.apply({"params": params["heads"][f"head_{i}"]}, each.embedding)
            for i, each in enumerate(outputs)
        ]
        terms = losses.mutual_contrast(
            projections,
            batch["label"],
            temperature=temperature,
            kd_temperature=kd_temperature,
            axis_name=axis_name,
        )
        terms = {name: jnp.mean(value) for name, value in terms._asdict().items()}
        total += alpha * terms["vcl"] + beta * terms["icl"]
        total += gamma * terms["soft_vcl"] + lam * terms["soft_icl"]
        if logit_distillation != "none":
            logits = [each.logits for each in outputs]
            terms["logit_distillation"] = jnp.mean(
                distill_logits(logits, logit_distillation, kd_temperature)
            )
            total += terms["logit_distillation"]
        return total, (model_state, metrics | terms)

    return base.Method(init=init, loss=loss, predict=functools.partial(base.predict_cohort, cohort))


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
