"""Golden networks: how to build them, what their outputs are called, and what kdjax computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from kdjax import losses, models
from kdjax.interop import torch as interop
from kdjax.methods.baselines.self_distillation.mixed_images import mixed_at
from kdjax.models import BranchedOutputs, Outputs, self_teacher
from tests import golden

Build = Callable[[Any], nn.Module]  # of a dtype
Named = dict[str, jax.Array]


class Pass(NamedTuple):
    """A network and what goes through it.

    Attributes:
      module: the network.
      variables: of the module.
      images: [B, H, W, C].
      record: the golden network's description.
      train: whether BatchNorm takes the moments of the images.
    """

    module: nn.Module
    variables: dict
    images: jax.Array
    record: dict
    train: bool

    def outputs(self, **options) -> tuple[Any, dict | None]:
        """The module's outputs and, in train mode, its updated statistics."""
        if not self.train:
            return self.module.apply(self.variables, self.images, **options), None
        outputs, updates = self.module.apply(
            self.variables, self.images, train=True, mutable=["batch_stats"], **options
        )
        return outputs, updates["batch_stats"]


# Outputs by the names that golden files use, without 'eval_' and 'train_', and updated statistics.
Run = Callable[[Pass], tuple[Named, dict | None]]


class GoldenCase(NamedTuple):
    """One golden network.

    Attributes:
      name: of its files in the golden `nets/`.
      build: dtype -> module.
      run: how to run the module.
    """

    name: str
    build: Build
    run: Run


def once(named: Callable[[Any], Named]) -> Run:
    """One pass; `named` takes the module's outputs to arrays by their golden names."""

    def run(one: Pass) -> tuple[Named, dict | None]:
        outputs, statistics = one.outputs()
        return named(outputs), statistics

    return run


def plain(outputs: Outputs) -> Named:
    """'logits', 'emb', 'feat1', 'feat2', ...: one network."""
    features = {f"feat{name.removeprefix('stage')}": x for name, x in outputs.features.items()}
    return {"logits": outputs.logits, "emb": outputs.embedding} | features


def hsakd(outputs: BranchedOutputs) -> Named:
    """The network's outputs, and 'aux1', 'aux2', ... of its joint heads."""
    heads = {f"aux{name.removeprefix('branch')}": x.logits for name, x in outputs.branches.items()}
    return plain(outputs.backbone) | heads


def mutual(outputs: tuple[BranchedOutputs, ...]) -> Named:
    """'logits_net0', 'aux1_net0', ...: online HSSAKD's networks."""
    named = {}
    for index, network in enumerate(outputs):
        named |= {f"{name}_net{index}": value for name, value in hsakd(network).items()}
    return named


def cohort(outputs: tuple[Outputs, ...]) -> Named:
    """'logits0', 'emb0', 'logits1', ...: several networks."""
    named = {}
    for index, network in enumerate(outputs):
        named |= {f"logits{index}": network.logits, f"emb{index}": network.embedding}
    return named


def stages(outputs: tuple[BranchedOutputs, ...]) -> Named:
    """'logits0_0', 'emb0_0', ...: L-MCL's networks, the branches of each before its head."""
    named = {}
    for index, network in enumerate(outputs):
        for stage, head in enumerate([*network.branches.values(), network.backbone]):
            named |= {f"logits{index}_{stage}": head.logits, f"emb{index}_{stage}": head.embedding}
    return named


def heads(outputs: models.BranchedOutputs) -> Named:
    """The network, then the branches from the last one on; 'feat0' is the network's embedding."""
    results = [outputs.backbone, *reversed(outputs.branches.values())]
    named = {"feat0": outputs.backbone.embedding}
    for index, head in enumerate(results):
        *_, last = head.features.values()
        named |= {f"logits{index}": head.logits, f"feat{index + 1}": last}
    return named


def gated(outputs: models.GatedOutputs) -> Named:
    """The ensemble is behind the networks."""
    named = cohort(outputs.networks)
    return named | {f"logits{len(outputs.networks)}": outputs.ensemble}


def peers(outputs: models.PeerOutputs) -> Named:
    """Peers are the last axis in the official arrays."""
    *others, leader = outputs.networks
    return {
        "output_batch": jnp.stack([peer.logits for peer in others], axis=-1),
        "x_m": outputs.targets.swapaxes(1, 2),
        "x_stu": leader.logits,
    }


def pyramid(outputs: models.PyramidOutputs) -> Named:
    """The network, and 'bi_logits', 'bi_feat1', ... of the pyramid."""
    features = {f"bi_feat{n.removeprefix('stage')}": x for n, x in outputs.features.items()}
    return plain(outputs.backbone) | {"bi_logits": outputs.logits} | features


def self_taught(one: Pass) -> tuple[Named, dict | None]:
    """Branches, then the network; 'ensemble' are the logits of interpolated feature maps.

    The first half of the batch is mixed with itself, the second stands for the mixed images.
    """
    outputs, statistics = one.outputs()
    named = {}
    for index, head in enumerate([*outputs.branches.values(), outputs.backbone]):
        named |= {f"logits{index}": head.logits, f"feat{index}": self_teacher.last_map(head)}
    recipe, logits = one.record["mixskd_train"], outputs.self_teacher
    half = len(logits) // 2
    # The self-teacher is linear in the maps.
    mixed = recipe["lam"] * logits[:half]
    mixed += (1 - recipe["lam"]) * logits[:half][jnp.array(recipe["index"])]
    named |= {"ensemble_logits": mixed, "ensemble_mixup_logits": logits[half:]}
    return named, statistics


def virtual_softmax(one: Pass) -> tuple[Named, dict | None]:
    """Also the logits with a further class, as far away as the target and in its direction."""
    named, statistics = once(plain)(one)
    if targets := one.record.get("virtual_softmax_targets"):
        kernel = one.variables["params"]["classifier"]["kernel"]
        lengths = jnp.linalg.norm(kernel[:, jnp.array(targets)], axis=0)
        lengths *= jnp.linalg.norm(named["emb"], axis=1)
        named["virtual_softmax_logits"] = jnp.concatenate(
            [named["logits"], lengths[:, None]], axis=1
        )
    return named, statistics


def manifold_mixup(one: Pass) -> tuple[Named, dict | None]:
    """In train mode the images' features are mixed before one of the stages."""
    if not one.train:
        return once(plain)(one)
    recipe = one.record["manifold_mixup"]
    mixture = losses.Mixture(recipe["lam"], jnp.array(recipe["index"]))
    results = {
        stage: one.outputs(hidden=mixed_at(stage - 1, mixture))
        for stage in range(1, one.module.num_stages + 1)
    }
    named = {f"logits_layer{stage}": outputs.logits for stage, (outputs, _) in results.items()}
    outputs, statistics = results[recipe["layer"]]
    return named | {"logits": outputs.logits}, statistics


def network(name: str, num_classes: int, **fields) -> Build:
    """How to build a network by its kdjax name, with some of its fields changed."""

    def build(dtype):
        return models.create(name, num_classes=num_classes, dtype=dtype).clone(**fields)

    return build


def several(one: Build, count: int, shared_stages: int = 0) -> Build:
    """How to build `count` networks that share their first stages."""

    def build(dtype):
        return models.Cohort((one(dtype),) * count, shared_stages=shared_stages)

    return build


def as_cohort(kind: Callable[[tuple], nn.Module], one: Build, count: int) -> Build:
    """How to build a cohort of another kind."""
    return lambda dtype: kind((one(dtype),) * count)


def form(make: Callable[[nn.Module], nn.Module], one: Build) -> Build:
    """How to build a network with branches."""
    return lambda dtype: make(one(dtype))


class Computed:
    """A golden network and what kdjax computes for it. Weights go in through kdjax.interop."""

    def __init__(self, case: GoldenCase):
        self.case = case
        self.record, self.arrays, self.images = golden.network(case.name)
        self.module = case.build(jnp.float32)
        self.state = golden.state_dict(self.record)
        shape = self.images.shape[1:]
        self.variables, self.report = interop.import_state_dict(
            self.module, self.state, image_shape=shape
        )
        self._results: dict = {}

    def results(self, mode: str, dtype=jnp.float32) -> tuple[Named, dict | None]:
        """The results in 'eval' or 'train' mode, as numpy arrays."""
        key = mode, jnp.dtype(dtype).name
        if key not in self._results:
            wide = dtype == jnp.float64
            with jax.enable_x64(wide):
                run = self._probed if wide and mode == "train" else self._run
                self._results[key] = jax.tree.map(np.asarray, run(mode, dtype))
        return self._results[key]

    def _run(self, mode: str, dtype):
        module = self.case.build(dtype)

        @jax.jit
        def run(variables, images):
            return self.case.run(Pass(module, variables, images, self.record, mode == "train"))

        return run(*self._inputs(dtype))

    def _probed(self, mode: str, dtype):
        """The results, with the probe's 'value' and its 'gradients' in place of statistics."""
        module = self.case.build(dtype)

        @jax.jit
        def run(variables, images):
            def probe(params):
                inputs = variables | {"params": params}
                named, _ = self.case.run(Pass(module, inputs, images, self.record, True))
                return self._probe(named), named

            (value, named), gradients = jax.value_and_grad(probe, has_aux=True)(variables["params"])
            return named, {"value": value, "gradients": gradients}

        return run(*self._inputs(dtype))

    def _probe(self, named: Named) -> jax.Array:
        """The sum of cross entropies that golden gradients are of."""
        names = self.record["train_probe"].split("sum over ")[1].split(" of cross")[0]
        total = 0.0
        for name in names.split(", "):
            logits = named[name]
            if logits.ndim == 3:  # [B, C, n]: rows in the order of b * n + branch
                logits = logits.swapaxes(1, 2).reshape(-1, logits.shape[1])
            log_probs = jax.nn.log_softmax(logits)
            labels = jnp.arange(len(log_probs)) % log_probs.shape[-1]
            total -= log_probs[jnp.arange(len(log_probs)), labels].mean()
        return total

    def _inputs(self, dtype) -> tuple[dict, np.ndarray]:
        return jax.tree.map(lambda x: np.asarray(x, dtype), (self.variables, self.images))

    def official(self, variables) -> dict[str, np.ndarray]:
        """Variables under their official names."""
        return interop.export_state_dict(
            self.module, variables, dialect=self.report.dialect, unread=self.report.unread
        )
