"""Layer-wise mutual contrastive learning: L-MCL (Yang et al., TPAMI 2023).

Networks have a branch after every stage but the last (`models.lmcl_branches`), an ensemble of their
stages, and a projection head per stage. A meta network says how much every pair of stages of two
networks counts; it learns apart from the networks, see `lmcl`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from kdjax import losses, numerics
from kdjax.errors import UserError
from kdjax.methods import base
from kdjax.methods.lmcl_parts import META, Parts, logits_of
from kdjax.methods.mcl import MutualContrastSettings
from kdjax.methods.registry import Clock, DataNeed, register
from kdjax.models import BranchedOutputs, Cohort, Form, StagedNetwork, lmcl_branches
from kdjax.settings import setting


@dataclasses.dataclass(frozen=True)
class Lmcl(MutualContrastSettings):
    """`config.lmcl`."""

    alpha: float = setting(0.1, "weight of VCL; 0.01 on ImageNet", at_least=0)
    beta: float = setting(0.1, "weight of ICL; 0.01 on ImageNet", at_least=0)
    meta_features: int = setting(
        128, "length of the vectors that the meta network compares", at_least=1
    )
    meta_interval: int = setting(
        50,
        "steps from one meta step to the next, counted in every epoch from its first step; 500 on "
        "ImageNet",
        at_least=1,
    )
    meta_steps: int = setting(2, "steps on the contrastive losses in a meta step", at_least=1)
    meta_momentum: float = setting(
        0.9, "of the steps in a meta step, and of the meta network's SGD", at_least=0, below=1
    )
    meta_weight_decay: float = setting(
        5e-4, "of both; 1e-4 on ImageNet: config.optimizer.weight_decay is meant", at_least=0
    )


@register(
    "lmcl",
    settings=Lmcl,
    networks=2,
    data={"images_per_class": DataNeed(2, reason="contrasts images of one class within a batch")},
    source="Yang et al., TPAMI 2023; official code winycg/L-MCL",
    paper="ResNet-32 70.91; two 75.82",
)
def lmcl(
    cohort: Cohort,
    settings: Lmcl,
    *,
    clock: Clock,
    axis_name: str | None = None,
    schedule: Callable[[jax.Array], jax.Array] | None = None,
) -> base.Method:
    """`losses.stage_ensembles`, and `losses.layer_contrast` by the weights of a meta network.

    To a step of the networks the weights are constants. After every `meta_interval`-th step comes a
    meta step, on the same batch: from the parameters as they are, `meta_steps` steps of SGD on the
    contrastive losses alone and one on the cross entropy of all stages, whose cross entropy
    afterwards is differentiated, through all of these steps, with respect to the meta network. That
    makes a step of its own SGD (Nesterov), at the networks' learning rate; the networks' parameters
    and statistics stay what they were.

    It predicts `network_i`, `network_i/branchk`, `network_i/ensemble` (of the network's stages) and
    `ensemble`, the mean of the networks' logits. Metrics have `layer_weight`, the mean weight.

    Args:
      cohort: two plain networks or more, which share nothing.
      settings: see `Lmcl`.
      clock: tells where in an epoch a step is.
      axis_name: the mapped device axis, over which contrast is gathered.
      schedule: the learning rate of a step; without one the method cannot be trained.

    Raises:
      UserError: fewer than two networks, networks that share stages or have one stage only.
    """
    cohort = _branched(cohort)
    parts = Parts(cohort, settings, axis_name)

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        del key
        labels, phi = batch["label"], model_state[META]["params"]
        outputs, model_state = base.train_outputs(cohort, params, model_state, batch["image"])
        weights = jax.lax.stop_gradient(parts.weights(phi, outputs))
        ensembles = parts.ensembles(params, outputs)
        terms = losses.stage_ensembles(
            logits_of(outputs), ensembles, labels, temperature=settings.kd_temperature
        )
        metrics = jax.tree.map(jnp.mean, terms)._asdict()
        contrast = parts.contrast(params, outputs, weights, labels)
        total = numerics.total(metrics.values()) + parts.weighted(contrast)
        metrics |= contrast._asdict()
        metrics["layer_weight"] = jnp.mean(jnp.stack([w.mean() for w in weights.values()]))
        metrics |= {
            f"{name}/accuracy": jnp.mean(logits.argmax(-1) == labels)
            for name, logits in _scores(outputs, ensembles).items()
        }
        return total, (model_state, metrics)

    def after_update(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.ModelState:
        del key
        if schedule is None:
            raise ValueError("method 'lmcl' trains its meta network: give a schedule")
        meta = jax.lax.cond(
            batch["step"] % clock.steps_per_epoch % settings.meta_interval == 0,
            lambda: parts.meta_step(params, model_state, batch, schedule(batch["step"])),
            lambda: model_state[META],
        )
        return model_state | {META: meta}

    def predict(
        params: base.Params, model_state: base.ModelState, images: jax.Array
    ) -> dict[str, jax.Array]:
        outputs = base.evaluation_outputs(cohort, params, model_state, images)
        scores = _scores(outputs, parts.ensembles(params, outputs))
        return scores | {
            "ensemble": base.mean_logits([network_outputs.backbone for network_outputs in outputs])
        }

    return base.cohort_method(
        cohort,
        loss,
        init=parts.init,
        predict=predict,
        after_update=after_update,
        form=Form("lmcl"),
    )


def _branched(cohort: Cohort) -> Cohort:
    base.check_nothing_shared(cohort, "lmcl")
    for index, network in enumerate(cohort.networks):
        if not isinstance(network, StagedNetwork) or network.num_stages < 2:
            raise UserError(
                f"network_{index}: method 'lmcl' adds branches after the stages of plain networks; "
                "name a network of two stages or more in config.networks"
            )
    return Cohort(tuple(lmcl_branches(network) for network in cohort.networks))


def _scores(
    outputs: Sequence[BranchedOutputs], ensembles: Sequence[jax.Array]
) -> dict[str, jax.Array]:
    """`network_i`, `network_i/branchk` and `network_i/ensemble`, `[B, N]` each."""
    scores = {}
    for index, (network_outputs, ensemble) in enumerate(zip(outputs, ensembles, strict=True)):
        name = f"network_{index}"
        scores[name] = network_outputs.backbone.logits
        scores |= {
            f"{name}/{branch}": output.logits for branch, output in network_outputs.branches.items()
        }
        scores[f"{name}/ensemble"] = ensemble
    return scores
