"""MixSKD (Yang et al., ECCV 2022, arXiv 2208.05768): self-distillation from mixup.

Networks have a branch after every stage but the last, and a self-teacher (`models.self_taught`);
both serve training only. Every batch is forwarded together with its mixup.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from kdjax import losses, numerics
from kdjax.errors import UserError
from kdjax.losses import Mixture
from kdjax.methods import base
from kdjax.methods.baselines.self_distillation.mixed_images import mixed_inputs
from kdjax.methods.mixskd_discriminators import (
    DISCRIMINATORS,
    discriminate,
    init_discriminators,
    stages,
)
from kdjax.methods.registry import register
from kdjax.models import (
    Cohort,
    Form,
    SelfTaught,
    SelfTaughtOutputs,
    StagedNetwork,
    self_teacher,
)
from kdjax.settings import setting


@dataclasses.dataclass(frozen=True)
class Mixskd:
    """`config.mixskd`."""

    alpha: float = setting(
        0.4, "of Beta(alpha, alpha), from which lambda is drawn; 0.2 on ImageNet", above=0
    )
    temperature: float = setting(3.0, "T", above=0)
    mixed_labels: bool = setting(
        True,
        "whether the mixed cross entropy is part of the loss; it alone trains the self-teacher, "
        "which keeps its initial weights without it, as in the official script for CIFAR",
    )
    train_discriminators: bool = setting(
        True,
        "whether the discriminators are trained; in both official scripts they keep their initial "
        "weights",
    )


@register(
    "mixskd",
    settings=Mixskd,
    source="Yang et al., ECCV 2022, arXiv 2208.05768",
    paper="ResNet-18 76.24 (mixup 78.68) -> 80.32",
)
def mixskd(cohort: Cohort, settings: Mixskd) -> base.Method:
    """Independent networks, each trained by the sum of all terms of `losses.mixskd`.

    The method predicts `network_i`, `network_i/branchk` and `network_i/self_teacher`; the training
    metrics have the accuracy of each on the unmixed images. Discriminators that are not trained are
    in the method's state under `CONSTANTS`.

    Args:
      cohort: plain networks, or networks made by `models.self_taught`.
      settings: see `Mixskd`.

    Raises:
      UserError: networks without stages for branches, or with shared stages; `init` raises it if
        the last feature maps of branches and network differ in shape.
    """
    cohort = _self_taught(cohort)
    _check(cohort)
    train_discriminators, temperature = settings.train_discriminators, settings.temperature

    def init(key: jax.Array, images: jax.Array) -> tuple[base.Params, base.ModelState]:
        cohort_key, key = jax.random.split(key)
        params, model_state = base.init_cohort(cohort, cohort_key, images)
        discriminators = {
            DISCRIMINATORS: init_discriminators(cohort, key, params, model_state, images)
        }
        if train_discriminators:
            return params | discriminators, model_state
        return params, model_state | {base.CONSTANTS: discriminators}

    def mixed(images: jax.Array, key: jax.Array) -> tuple[jax.Array, Mixture]:
        mixture = losses.draw_mixture(key, images.shape[0], alpha=settings.alpha)
        return losses.mix(images, mixture), mixture

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        images, labels = batch["image"], batch["label"]
        mixtures, mixture = mixed(images, key)
        outputs, model_state = base.train_outputs(
            cohort, params, model_state, jnp.concatenate([images, mixtures])
        )
        trained = params if train_discriminators else model_state[base.CONSTANTS]
        network_terms = [
            _terms(network_outputs, discriminators, labels, mixture, temperature)
            for network_outputs, discriminators in zip(
                outputs, _in_order(trained[DISCRIMINATORS]), strict=True
            )
        ]
        terms = jax.tree.map(lambda *values: jnp.mean(numerics.total(values)), *network_terms)
        total = (
            sum(terms) if settings.mixed_labels else sum(terms._replace(mixed_cross_entropy=0.0))
        )
        accuracies = {
            f"{name}/accuracy": jnp.mean(logits[: len(labels)].argmax(-1) == labels)
            for name, logits in _scores(outputs).items()
        }
        return total, (model_state, terms._asdict() | accuracies)

    def inputs(batch: base.Batch, key: jax.Array) -> base.Inputs:
        images, labels = batch["image"], batch["label"]
        mixtures, mixture = mixed(images, key)
        unmixed = mixture._replace(lam=jnp.ones_like(mixture.lam))
        plain, mixed_rows = (
            mixed_inputs(images, labels, unmixed),
            mixed_inputs(mixtures, labels, mixture),
        )

        def interleaved(one: jax.Array, other: jax.Array) -> jax.Array:
            """Interleaves images and mixtures, so that the first rows show both."""
            return jnp.stack([one, other], axis=1).reshape(-1, *one.shape[1:])

        images, labels, weights = map(interleaved, plain[:3], mixed_rows[:3])
        return base.Inputs(images, labels, weights)

    return base.cohort_method(
        cohort,
        loss,
        init=init,
        predict=functools.partial(_predict, cohort),
        optimizer=(lambda tx: tx) if settings.mixed_labels else _without_self_teachers,
        inputs=inputs,
        form=Form("mixskd"),
    )


def _terms(
    outputs: SelfTaughtOutputs,
    discriminators: dict[str, Any],
    labels: jax.Array,
    mixture: Mixture,
    temperature: float,
) -> losses.Mixskd:
    """The loss terms of one network, from its outputs for images followed by their mixtures."""
    stage_outputs = stages(outputs)
    maps = {name: self_teacher.last_map(stage) for name, stage in stage_outputs.items()}
    return losses.mixskd(
        [stage.logits for stage in stage_outputs.values()],
        list(maps.values()),
        losses.mixed_pair(outputs.self_teacher, mixture),
        discriminate(maps, discriminators, mixture),
        labels,
        mixture,
        temperature=temperature,
    )


def _in_order(by_network: dict[str, Any]) -> list[Any]:
    return [by_network[f"network_{index}"] for index in range(len(by_network))]


def _scores(outputs: Sequence[SelfTaughtOutputs]) -> dict[str, jax.Array]:
    """`network_i`, `network_i/branchk` and `network_i/self_teacher`, `[B, N]` each."""
    logits = {}
    for index, network_outputs in enumerate(outputs):
        name = f"network_{index}"
        logits[name] = network_outputs.backbone.logits
        logits |= {
            f"{name}/{branch}": branch_outputs.logits
            for branch, branch_outputs in network_outputs.branches.items()
        }
        logits[f"{name}/self_teacher"] = network_outputs.self_teacher
    return logits


def _predict(
    cohort: Cohort, params: base.Params, model_state: base.ModelState, images: jax.Array
) -> dict[str, jax.Array]:
    """The `_scores` and, from two networks on, `ensemble`: their mean logits."""
    outputs = base.evaluation_outputs(cohort, params, model_state, images)
    logits = _scores(outputs)
    if len(outputs) > 1:
        logits["ensemble"] = base.mean_logits(
            [network_outputs.backbone for network_outputs in outputs]
        )
    return logits


def _without_self_teachers(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """`tx` without updates of self-teachers, which weight decay would shrink."""

    def in_self_teacher(params: base.Params) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "self_teacher" in [key.key for key in path], params
        )

    return optax.chain(tx, optax.masked(optax.set_to_zero(), in_self_teacher))


def _self_taught(cohort: Cohort) -> Cohort:
    """The cohort with branches and self-teachers added to plain networks."""
    if not all(isinstance(network, StagedNetwork) for network in cohort.networks):
        return cohort  # `_check` tells self-taught ones from others
    base.check_nothing_shared(cohort, "mixskd")
    return Cohort(tuple(self_teacher.self_taught(network) for network in cohort.networks))


def _check(cohort: Cohort) -> None:
    for index, network in enumerate(cohort.networks):
        if not isinstance(network, SelfTaught) or not network.heads:
            raise UserError(
                f"network_{index} has no branches and self-teacher, which method 'mixskd' needs; "
                "name a network of two stages or more in config.networks"
            )
