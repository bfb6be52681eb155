"""What L-MCL adds to its networks: heads, ensembles of stages, and the meta network's step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kdjax import losses
from kdjax.methods import base
from kdjax.methods.mcl import ProjectionHead, unsynchronized
from kdjax.methods.unrolled import unrolled_sgd
from kdjax.models import (
    BranchedOutputs,
    Cohort,
    Outputs,
    StageAggregator,
    StageProjections,
    lmcl_branches,
)
from kdjax.models.outputs import outputs_of
from kdjax.numerics import total

# The meta network's parameters and momentum, in the method's state.
META = "meta"

ByStage = list[list[jax.Array]]


@dataclasses.dataclass(frozen=True)
class Parts:
    """What L-MCL is made of, as functions of its parameters and state.

    Attributes:
      cohort: networks with branches.
      settings: `config.lmcl`.
      axis_name: the mapped device axis, or None.
    """

    cohort: Cohort
    settings: Any
    axis_name: str | None

    @property
    def projections(self) -> StageProjections:
        return StageProjections(self.settings.meta_features)

    def init(self, key: jax.Array, images: jax.Array) -> tuple[base.Params, base.ModelState]:
        cohort_key, meta_key, key = jax.random.split(key, 3)
        params, model_state = base.init_cohort(self.cohort, cohort_key, images)
        run = functools.partial(base.train_outputs, _unsynchronized(self.cohort))
        outputs, _ = jax.eval_shape(run, params, model_state, images)
        shapes = embeddings_of(outputs), logits_of(outputs)
        embeddings, logits = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shapes)
        heads, aggregators = {}, {}
        for index, (vectors, scores) in enumerate(zip(embeddings, logits, strict=True)):
            own_key, *head_keys = jax.random.split(jax.random.fold_in(key, index), 1 + len(vectors))
            name = f"network_{index}"
            aggregators[name] = StageAggregator().init(own_key, vectors, scores)["params"]
            heads[name] = {
                f"stage{stage}": self._head.init(head_key, x)["params"]
                for stage, (head_key, x) in enumerate(zip(head_keys, vectors, strict=True), 1)
            }
        phi = self.projections.init(meta_key, embeddings)["params"]
        meta = {"params": phi, "momentum": jax.tree.map(jnp.zeros_like, phi)}
        return params | {"heads": heads, "aggregators": aggregators}, model_state | {META: meta}

    @property
    def _head(self) -> ProjectionHead:
        return ProjectionHead(self.settings.projection_features)

    def weights(
        self, phi: Any, outputs: Sequence[BranchedOutputs]
    ) -> dict[tuple[int, int], jax.Array]:
        projected = outputs_of(self.projections, {"params": phi}, embeddings_of(outputs))
        return losses.layer_weights(projected)

    def ensembles(self, params: base.Params, outputs: Sequence[BranchedOutputs]) -> list[jax.Array]:
        pairs = zip(embeddings_of(outputs), logits_of(outputs), strict=True)
        return [
            outputs_of(
                StageAggregator(dtype=logits[-1].dtype),
                {"params": params["aggregators"][f"network_{index}"]},
                vectors,
                logits,
            )
            for index, (vectors, logits) in enumerate(pairs)
        ]

    def contrast(
        self,
        params: base.Params,
        outputs: Sequence[BranchedOutputs],
        weights: Mapping[tuple[int, int], jax.Array],
        labels: jax.Array,
    ) -> losses.MutualContrast:
        """The four terms, means over this device's images."""
        projected = [
            [
                outputs_of(
                    self._head, {"params": params["heads"][f"network_{index}"][f"stage{k}"]}, x
                )
                for k, x in enumerate(vectors, 1)
            ]
            for index, vectors in enumerate(embeddings_of(outputs))
        ]
        terms = losses.layer_contrast(
            projected,
            weights,
            labels,
            temperature=self.settings.temperature,
            kd_temperature=self.settings.kd_temperature,
            axis_name=self.axis_name,
        )
        return jax.tree.map(jnp.mean, terms)

    def weighted(self, terms: losses.MutualContrast) -> jax.Array:
        settings = self.settings
        hard = settings.alpha * terms.vcl + settings.beta * terms.icl
        return hard + settings.gamma * terms.soft_vcl + settings.lam * terms.soft_icl

    def meta_step(
        self,
        params: base.Params,
        model_state: base.ModelState,
        batch: base.Batch,
        learning_rate: jax.Array,
    ) -> dict[str, Any]:
        """The meta network's parameters and momentum after a step."""
        meta, labels, settings = model_state[META], batch["label"], self.settings
        trained = {"cohort": params["cohort"], "heads": params["heads"]}

        def contrast(
            outputs: Sequence[BranchedOutputs], trained: base.Params, phi: Any
        ) -> jax.Array:
            weights = self.weights(phi, outputs)
            return self.weighted(self.contrast(trained, outputs, weights, labels))

        def classification(outputs: Sequence[BranchedOutputs]) -> jax.Array:
            logits = [stage_logits for stages in logits_of(outputs) for stage_logits in stages]
            return total(
                jnp.mean(losses.cross_entropy(stage_logits, labels)) for stage_logits in logits
            )

        def run(trained: base.Params) -> Sequence[BranchedOutputs]:
            return base.train_outputs(self.cohort, trained, model_state, batch["image"])[0]

        def outcome(phi: base.Params) -> jax.Array:
            def objective(trained: base.Params, last: jax.Array) -> jax.Array:
                # The networks run once for both: most of the program is they.
                outputs = run(trained)
                return jnp.where(last, classification(outputs), contrast(outputs, trained, phi))

            after = unrolled_sgd(
                trained,
                objective,
                np.arange(settings.meta_steps + 1) == settings.meta_steps,
                learning_rate=learning_rate,
                momentum=settings.meta_momentum,
                weight_decay=settings.meta_weight_decay,
                axis_name=self.axis_name,
            )
            return classification(run(after))

        gradient = jax.grad(outcome)(meta["params"])
        if self.axis_name is not None:
            gradient = jax.lax.pmean(gradient, self.axis_name)
        return _sgd(
            meta, gradient, learning_rate, settings.meta_momentum, settings.meta_weight_decay
        )


def _sgd(
    meta: dict[str, Any],
    gradient: base.Params,
    learning_rate: jax.Array,
    momentum: float,
    weight_decay: float,
) -> dict[str, Any]:
    """A step of PyTorch's SGD with Nesterov momentum, at a given learning rate."""
    tx = optax.chain(optax.add_decayed_weights(weight_decay), optax.trace(momentum, nesterov=True))
    state = (optax.EmptyState(), optax.TraceState(meta["momentum"]))
    updates, (_, trace) = tx.update(gradient, state, meta["params"])
    params = jax.tree.map(lambda p, u: p - learning_rate * u, meta["params"], updates)
    return {"params": params, "momentum": trace.trace}


def _unsynchronized(cohort: Cohort) -> Cohort:
    """As `mcl.unsynchronized`, of networks with branches."""
    plain = Cohort(tuple(network.network for network in cohort.networks))
    return Cohort(tuple(lmcl_branches(network) for network in unsynchronized(plain).networks))


def _stages(outputs: BranchedOutputs) -> list[Outputs]:
    """Of the branches in their order, and of the network itself: what has logits of its own."""
    return [*outputs.branches.values(), outputs.backbone]


def embeddings_of(outputs: Sequence[BranchedOutputs]) -> ByStage:
    return [[stage.embedding for stage in _stages(network_outputs)] for network_outputs in outputs]


def logits_of(outputs: Sequence[BranchedOutputs]) -> ByStage:
    return [[stage.logits for stage in _stages(network_outputs)] for network_outputs in outputs]
