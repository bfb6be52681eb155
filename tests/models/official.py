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
# Outputs by their golden names, and updated statistics in train mode.
Results = tuple[Named, dict | None]


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


def once(computed: Computed, mode: str) -> Results:
    """One pass over the images in 'eval' or 'train' mode."""
    named = computed.case.named
    if mode == "eval":
        return named(computed.apply(computed.variables, computed.images)), None
    outputs, updates = computed.train(computed.variables, computed.images)
    return named(outputs), updates["batch_stats"]


class GoldenCase(NamedTuple):
    """One golden network.

    Attributes:
      name: of its files in the golden `nets/`.
      build: dtype -> module.
      named: outputs -> arrays by the names that the golden files use, without 'eval_' and 'train_'.
      fast: whether it is part of the default run: one small network per family.
      counted: module -> the module whose multiply-adds the golden file gives.
      run: (computed, mode) -> results, where they are more than those of one pass.
      float64_train: whether train mode is computed and compared in float64, because the rounding
        of the official code's float32 is larger than the tolerance.
    """

    name: str
    build: Callable[[Any], nn.Module]
    named: Callable[[Any], Named]
    fast: bool = False
    counted: Callable[[nn.Module], nn.Module] = lambda module: module
    run: Callable[[Computed, str], Results] = once
    float64_train: bool = False


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


def _apply(module: nn.Module, variables, x, **kwargs):
    apply = jax.jit(lambda v, x: module.apply(v, x, **kwargs))
    return jax.tree.map(np.asarray, apply(variables, x))


class Computed:
    """A golden network and what kdjax computes for it. Weights go in through kdjax.interop."""

    def __init__(self, case: GoldenCase):
        self.case = case
        self.record, self.arrays, self.images = golden.network(case.name)
        self.module = case.build(jnp.float32)
        self.state = golden.state_dict(self.record)
        self.variables, self.report = interop.import_state_dict(self.module, self.state)
        self._results = {}

    def results(self, mode: str) -> Results:
        """The results in 'eval' or 'train' mode."""
        if mode not in self._results:
            self._results[mode] = self.case.run(self, mode)
        return self._results[mode]

    def expected(self, key: str) -> tuple[np.ndarray, float]:
        """A golden array of the whole result, and the tolerance to compare with."""
        if not (self.case.float64_train and key.startswith("train_")):
            return self.arrays[key], 1e-4
        if f"{key}_f64" in self.arrays:
            return self.arrays[f"{key}_f64"], 1e-9
        # Only in float32: off by the official code's own rounding, which is on record.
        return self.arrays[key], 1.01 * self.record["torch_f32_vs_f64_rel"][key]

    def apply(self, variables, x, **kwargs):
        """What the module makes of `x`, as numpy arrays."""
        return _apply(self.module, variables, x, **kwargs)

    def train(self, variables, x, **kwargs):
        """The same in train mode: outputs, and updates."""
        kwargs = {"train": True, "mutable": ["batch_stats"]} | kwargs
        if not self.case.float64_train:
            return self.apply(variables, x, **kwargs)
        with jax.enable_x64(True):
            wide = jax.tree.map(lambda array: np.asarray(array, np.float64), (variables, x))
            return _apply(self.case.build(jnp.float64), *wide, **kwargs)

    def official(self, variables) -> dict[str, np.ndarray]:
        """Variables under their official names."""
        return interop.export_state_dict(
            self.module, variables, dialect=self.report.dialect, unread=self.report.unread
        )
