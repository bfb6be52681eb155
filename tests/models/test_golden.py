"""CIFAR ResNets and WRNs against the papers' official code."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models
from tests import golden

FAST = ("hsakd_resnet8", "hsakd_resnet8x4", "hsakd_wrn_16_1", "mcl_wrn_16_2_n4")
SLOW = (
    "hsakd_resnet20",
    "hsakd_resnet32",
    "hsakd_resnet44",
    "hsakd_resnet56",
    "hsakd_wrn_16_2",
    "hsakd_wrn_40_2",
    "mcl_resnet32_n2",
    "mcl_resnet32_n4",
    "mcl_resnet56_n2",
    "mcl_wrn_16_2_n2",
    "mcl_wrn_40_2_n2",
    "okd_resnet110",
    "okd_resnet32",
)
CASES = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


def build(name: str, dtype=jnp.float32):
    """The module for a golden network's name: `<paper>_<network>[_n<number of networks>]`."""
    network, number = re.fullmatch(r"[a-z]+_(.+?)(?:_n(\d))?", name).groups()
    if name == "okd_resnet110":
        network = "resnet110_bottleneck"
    module = models.create(network, num_classes=100, dtype=dtype)
    if number is None:
        return module
    # The official code shares the stem and the first stage from more than two networks on.
    return models.Cohort((module,) * int(number), shared_stages=int(int(number) > 2))


def as_tuple(outputs) -> tuple[models.Outputs, ...]:
    return (outputs,) if isinstance(outputs, models.Outputs) else outputs


class Case:
    """A golden network and what kdjax computes for it."""

    def __init__(self, name: str):
        self.record, self.arrays, self.images = golden.network(name)
        self.module = build(name)
        self.variables = golden.variables(self.record)

        @jax.jit
        def run(variables, images):
            evaluated = self.module.apply(variables, images)
            trained = self.module.apply(variables, images, train=True, mutable=["batch_stats"])
            return evaluated, *trained

        evaluated, trained, updates = run(self.variables, self.images)
        self.evaluated, self.trained = as_tuple(evaluated), as_tuple(trained)
        self.batch_stats = updates["batch_stats"]


@pytest.fixture(scope="module", params=CASES)
def case(request) -> Case:
    return Case(request.param)


def output_names(prefix: str, count: int) -> list[str]:
    """Official names of an output: plain for one network, numbered for several."""
    return [prefix] if count == 1 else [f"{prefix}{index}" for index in range(count)]


def test_parameters_and_multiply_adds(case):
    shapes = jax.eval_shape(case.module.init, jax.random.key(0), case.images)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, case.variables)
    assert models.parameter_count(shapes["params"]) == case.record["param_count"]
    counted = models.multiply_adds(case.module, case.images.shape[1:])
    assert counted == case.record["multi_adds"]["value"]


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_logits_and_embeddings(case, mode):
    results = case.evaluated if mode == "eval" else case.trained
    for prefix, field in (("logits", "logits"), ("emb", "embedding")):
        for name, result in zip(output_names(prefix, len(results)), results, strict=True):
            if prefix == "logits" or f"{mode}_{name}" in case.arrays:
                golden.assert_close(getattr(result, field), case.arrays[f"{mode}_{name}"])


def test_features(case):
    for result in case.evaluated:
        assert list(result.features) == ["stage1", "stage2", "stage3"]
    # Only HSAKD's networks expose their feature maps.
    for name in filter(re.compile(r"eval_feat\d").fullmatch, case.record["arrays"]):
        feature = np.asarray(case.evaluated[0].features[f"stage{name[-1]}"])
        assert list(feature.shape) == case.record["arrays"][name]["shape"]
        stride = case.record["arrays"][name].get("stride", 1)
        golden.assert_close(feature[:1, ::stride, ::stride], case.arrays[f"{name}_s0"])
        golden.assert_close(feature.mean((1, 2)), case.arrays[f"{name}_mean"])
        golden.assert_close(np.sqrt((feature**2).mean((1, 2))), case.arrays[f"{name}_rms"])


@pytest.mark.parametrize("place", ["first", "last"])
def test_running_statistics(case, place):
    for official, kind in (("running_mean", "bn_mean"), ("running_var", "bn_var")):
        name = f"{case.record[f'bn_{place}']}.{official}"
        value = case.batch_stats
        for key in golden.official_path(case.record, name, kind)[1:]:
            value = value[key]
        golden.assert_close(value, case.arrays[f"train_bn_{place}_{official}"])


@pytest.mark.parametrize(
    "name",
    [
        "hsakd_resnet8",
        "hsakd_wrn_16_1",
        pytest.param("mcl_wrn_16_2_n4", marks=pytest.mark.slow),
        pytest.param("hsakd_resnet32", marks=pytest.mark.slow),
        pytest.param("okd_resnet110", marks=pytest.mark.slow),
    ],
)
def test_gradients_in_float64(name):
    record, arrays, images = golden.network(name)
    with jax.enable_x64(True):
        module = build(name, jnp.float64)
        variables = golden.variables(record, np.float64)
        labels = jnp.arange(images.shape[0]) % 100

        @jax.jit
        @jax.value_and_grad
        def probe(params):
            inputs = variables | {"params": params}
            outputs, _ = module.apply(
                inputs, images.astype(np.float64), train=True, mutable=["batch_stats"]
            )
            log_probs = [jax.nn.log_softmax(output.logits) for output in as_tuple(outputs)]
            picked = [values[jnp.arange(labels.size), labels].mean() for values in log_probs]
            return -sum(picked)

        value, gradients = probe(variables["params"])
        assert value.dtype == jnp.float64
        golden.assert_close(value, arrays["train_probe_f64"], 1e-9)
        norms = []
        for entry, _, kind in record["state_dict"]:
            if kind in ("bn_mean", "bn_var", "bn_count"):
                continue
            gradient = gradients
            for key in golden.official_path(record, entry, kind)[1:]:
                gradient = gradient[key]
            norms.append(np.linalg.norm(np.asarray(gradient).ravel()))
        golden.assert_close(np.array(norms), arrays["train_grad_norm_f64"], 1e-8)
