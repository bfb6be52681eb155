"""MixSKD (Yang et al., ECCV 2022, arXiv 2208.05768): networks that learn from their mixed images.

Networks have a branch after every stage but the last, and a self-teacher (`models.self_taught`).
A batch is shown to them twice, as it is and mixed. Neither is needed afterwards.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from kdjax import losses
from kdjax.errors import UserError
from kdjax.losses import Mixture
from kdjax.methods import base
from kdjax.methods.baselines.self_distillation.mixed_images import mixed_inputs
from kdjax.methods.registry import register
from kdjax.models import (
    Cohort,
    Form,
    Outputs,
    SelfTaught,
    SelfTaughtOutputs,
    StagedNetwork,
    layers,
    self_teacher,
)
from kdjax.numerics import accumulation_dtype
from kdjax.settings import setting

# Where the discriminators are: among the parameters or, if they are not trained, the constants.
DISCRIMINATORS = "discriminators"
_HIDDEN = 128


class Discriminator(nn.Module):
    """Averaged maps `[B, C]` to `[B, 2]`, logits of 'interpolated' and of 'mixed'.

    Linear, ReLU, linear. Source: `Discriminator` in Self-KD-Lib methods/adversarial.py.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dtype = accumulation_dtype(x.dtype)
        x = layers.dense(x.shape[-1], _HIDDEN, dtype=dtype, name="hidden")(x)
        return layers.dense(_HIDDEN, 2, dtype=dtype, name="output")(nn.relu(x))


@dataclasses.dataclass(frozen=True)
class Mixskd:
    """`config.mixskd`."""

    alpha: float = setting(
        0.4, "of Beta(alpha, alpha), from which lambda is drawn; 0.2 on ImageNet", above=0
    )
    temperature: float = setting(3.0, "T", above=0)
    mixed_labels: bool = setting(
        True,
        "the mixed cross entropy is part of the loss; the self-teacher learns from nothing else: "
        "without, as in the official script for CIFAR, it stays as it began",
    )
    train_discriminators: bool = setting(
        True, "the discriminators learn; in both official scripts they stay as they began"
    )


@register(
    "mixskd",
    settings=Mixskd,
    source="Yang et al., ECCV 2022, arXiv 2208.05768",
    paper="ResNet-18 76.24 (mixup 78.68) -> 80.32",
)
def mixskd(cohort: Cohort, settings: Mixskd) -> base.Method:
    """Networks that learn each for itself: the sum of all terms of `losses.mixskd`.

    It predicts `network_i`, `network_i/branchk` and `network_i/self_teacher`; accuracies of the
    same names, of the images as they are, are reported while training. Discriminators that do not
    learn are in the method's state under `CONSTANTS`.

    Args:
      cohort: plain networks, or those of `models.self_taught`.
      settings: see `Mixskd`.

    Raises:
      UserError: networks without stages for branches, or that share stages; by `init`, branches
        whose last maps have another shape than the network's.
    """
    cohort = _self_taught(cohort)
    _check(cohort)
    train_discriminators, temperature = settings.train_discriminators, settings.temperature

    def init(key, images):
        cohort_key, key = jax.random.split(key)
        params, model_state = base.init_cohort(cohort, cohort_key, images)
        own = {DISCRIMINATORS: _init_discriminators(cohort, key, params, model_state, images)}
        if train_discriminators:
            return params | own, model_state
        return params, model_state | {base.CONSTANTS: own}

    def mixed(images, key):
        mixture = losses.draw_mixture(key, images.shape[0], alpha=settings.alpha)
        return losses.mix(images, mixture), mixture

    def loss(params, model_state, batch, key):
        images, labels = batch["image"], batch["label"]
        mixtures, mixture = mixed(images, key)
        outputs, model_state = base.train_outputs(
            cohort, params, model_state, jnp.concatenate([images, mixtures])
        )
        trained = params if train_discriminators else model_state[base.CONSTANTS]
        found = [
            _terms(each, own, labels, mixture, temperature)
            for each, own in zip(outputs, _in_order(trained[DISCRIMINATORS]), strict=True)
        ]
        terms = jax.tree.map(lambda *each: jnp.mean(sum(each)), *found)
        total = (
            sum(terms) if settings.mixed_labels else sum(terms._replace(mixed_cross_entropy=0.0))
        )
        accuracies = {
            f"{name}/accuracy": jnp.mean(logits[: len(labels)].argmax(-1) == labels)
            for name, logits in _scores(outputs).items()
        }
        return total, (model_state, terms._asdict() | accuracies)

    def inputs(batch, key):
        images, labels = batch["image"], batch["label"]
        mixtures, mixture = mixed(images, key)
        whole = mixture._replace(lam=jnp.ones_like(mixture.lam))
        own, both = mixed_inputs(images, labels, whole), mixed_inputs(mixtures, labels, mixture)

        def beside(one, other):
            """Every image beside its mixture: who looks at the first rows sees both."""
            return jnp.stack([one, other], axis=1).reshape(-1, *one.shape[1:])

        return base.Inputs(*map(beside, own[:3], both[:3]))

    return base.cohort_method(
        cohort,
        loss,
        init=init,
        predict=functools.partial(_predict, cohort),
        optimizer=(lambda tx: tx) if settings.mixed_labels else _without_self_teachers,
        inputs=inputs,
        form=Form("mixskd"),
    )


def stages(outputs: SelfTaughtOutputs) -> dict[str, Outputs]:
    """'branch1', 'branch2', ... and, last, 'backbone': all that has logits and a map of its own."""
    return {**outputs.branches, "backbone": outputs.backbone}


def _terms(
    outputs: SelfTaughtOutputs, discriminators: dict, labels, mixture: Mixture, temperature: float
) -> losses.Mixskd:
    """The terms of one network's loss, from its outputs for the images and their mixtures."""
    each = stages(outputs)
    maps = {name: self_teacher.last_map(stage) for name, stage in each.items()}
    discriminated = []
    for name, x in maps.items():
        wide = x.astype(accumulation_dtype(x.dtype))
        averaged = losses.mixed_pair(layers.global_average_pool(wide), mixture)
        judge = functools.partial(Discriminator().apply, {"params": discriminators[name]})
        discriminated.append(losses.MixedPair(*map(judge, averaged)))
    return losses.mixskd(
        [stage.logits for stage in each.values()],
        list(maps.values()),
        losses.mixed_pair(outputs.self_teacher, mixture),
        discriminated,
        labels,
        mixture,
        temperature=temperature,
    )


def _in_order(by_network: dict) -> list:
    return [by_network[f"network_{index}"] for index in range(len(by_network))]


def _init_discriminators(cohort: Cohort, key, params, model_state, images) -> dict:
    """Parameters of a discriminator for every stage of every network, by their names."""
    shapes = jax.eval_shape(
        functools.partial(cohort.apply, train=False),
        {"params": params["cohort"], "batch_stats": model_state["batch_stats"]},
        images,
    )
    found = {}
    for index, outputs in enumerate(shapes):
        maps = {name: self_teacher.last_map(each) for name, each in stages(outputs).items()}
        _check_maps(index, {name: x.shape[1:] for name, x in maps.items()})
        own_key = jax.random.fold_in(key, index)
        found[f"network_{index}"] = {
            name: Discriminator().init(own, jnp.zeros((1, x.shape[-1])))["params"]
            for own, (name, x) in zip(
                jax.random.split(own_key, len(maps)), maps.items(), strict=True
            )
        }
    return found


def _scores(outputs: Sequence[SelfTaughtOutputs]) -> dict[str, jax.Array]:
    """`network_i`, `network_i/branchk` and `network_i/self_teacher`, `[B, N]` each."""
    found = {}
    for index, each in enumerate(outputs):
        name = f"network_{index}"
        found[name] = each.backbone.logits
        found |= {f"{name}/{branch}": own.logits for branch, own in each.branches.items()}
        found[f"{name}/self_teacher"] = each.self_teacher
    return found


def _predict(cohort: Cohort, params, model_state, images) -> dict[str, jax.Array]:
    """The `_scores` and, from two networks on, `ensemble`: their mean logits."""
    variables = {"params": params["cohort"], "batch_stats": model_state["batch_stats"]}
    outputs = cohort.apply(variables, images, train=False)
    found = _scores(outputs)
    if len(outputs) > 1:
        found["ensemble"] = sum(each.backbone.logits for each in outputs) / len(outputs)
    return found


def _without_self_teachers(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """`tx`, but self-teachers stay: they have no gradient, yet weight decay would shrink them."""

    def is_theirs(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "self_teacher" in [key.key for key in path], params
        )

    return optax.chain(tx, optax.masked(optax.set_to_zero(), is_theirs))


def _self_taught(cohort: Cohort) -> Cohort:
    """The cohort with branches and self-teachers, which some networks may have already."""
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


def _check_maps(index: int, shapes: dict[str, tuple[int, ...]]) -> None:
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{name} {'x'.join(map(str, each))}" for name, each in shapes.items())
        raise UserError(
            f"method 'mixskd' needs last maps of one shape in all branches of network_{index}, "
            f"which has {found}; name another network in config.networks"
        )
