"""The golden networks: which module of kdjax each of them is, and what its outputs are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from kdjax import models
from kdjax.interop import torch as interop
from kdjax.models import BranchedOutputs, Outputs
from tests import golden

Named = dict[str, jax.Array]


def plain(outputs: Outputs) -> Named:
    """'logits', 'emb', 'feat1', 'feat2', ...: one network."""
    features = {f"feat{name.removeprefix('stage')}": x for name, x in outputs.features.items()}
    return {"logits": outputs.logits, "emb": outputs.embedding} | features


def hsakd(outputs: BranchedOutputs) -> Named:
    """The network's own outputs, and 'aux1', 'aux2', ... of its joint heads."""
    heads = {f"aux{name.removeprefix('branch')}": x.logits for name, x in outputs.branches.items()}
    return plain(outputs.backbone) | heads


def cohort(outputs: tuple[Outputs, ...]) -> Named:
    """'logits0', 'emb0', 'logits1', ...: several networks."""
    named = {}
    for index, each in enumerate(outputs):
        named |= {f"logits{index}": each.logits, f"emb{index}": each.embedding}
    return named


def stages(outputs: tuple[BranchedOutputs, ...]) -> Named:
    """'logits0_0', 'emb0_0', ...: L-MCL's networks, each with its branches before its own head."""
    named = {}
    for index, each in enumerate(outputs):
        for stage, head in enumerate([*each.branches.values(), each.backbone]):
            named |= {f"logits{index}_{stage}": head.logits, f"emb{index}_{stage}": head.embedding}
    return named


class GoldenCase(NamedTuple):
    """One golden network.

    Attributes:
      name: of its files in the golden `nets/`.
      build: dtype -> module.
      named: outputs -> arrays by the names that the golden files use, without 'eval_' and 'train_'.
      fast: whether it is part of the default run: one small network per family.
      counted: module -> the module whose multiply-adds the golden file gives.
    """

    name: str
    build: Callable[[Any], nn.Module]
    named: Callable[[Any], Named]
    fast: bool = False
    counted: Callable[[nn.Module], nn.Module] = lambda module: module


def network(name: str, num_classes: int = 100, **fields) -> Callable[[Any], nn.Module]:
    """How to build a network by its kdjax name, with some of its fields changed."""

    def build(dtype=jnp.float32):
        return models.create(name, num_classes=num_classes, dtype=dtype).clone(**fields)

    return build


def several(one: Callable[[Any], nn.Module], count: int, shared_stages: int = 0):
    """How to build `count` networks that share their first stages."""

    def build(dtype=jnp.float32):
        return models.Cohort((one(dtype),) * count, shared_stages=shared_stages)

    return build


def form(make: Callable[[nn.Module], nn.Module], one: Callable[[Any], nn.Module]):
    """How to build a network with branches."""

    def build(dtype=jnp.float32):
        return make(one(dtype))

    return build


class Computed:
    """A golden network and what kdjax computes for it. Weights go in through kdjax.interop."""

    def __init__(self, case: GoldenCase):
        self.case = case
        self.record, self.arrays, self.images = golden.network(case.name)
        self.module = case.build(jnp.float32)
        self.state = golden.state_dict(self.record)
        self.variables, self.report = interop.import_state_dict(self.module, self.state)
        self._results = {}

    def results(self, mode: str) -> tuple[Named, dict | None]:
        """Outputs by their golden names in 'eval' or 'train' mode, and updated statistics."""
        if mode not in self._results:
            self._results[mode] = self._run(mode)
        return self._results[mode]

    def _run(self, mode: str):
        if mode == "eval":
            return self.case.named(self._apply(self.variables)), None
        outputs, updates = self._apply(self.variables, train=True, mutable=["batch_stats"])
        return self.case.named(outputs), updates["batch_stats"]

    def _apply(self, variables, **kwargs):
        apply = jax.jit(lambda v, x: self.module.apply(v, x, **kwargs))
        return jax.tree.map(np.asarray, apply(variables, self.images))

    def official(self, variables) -> dict[str, np.ndarray]:
        """Variables under their official names."""
        return interop.export_state_dict(self.module, variables, dialect=self.report.dialect)
