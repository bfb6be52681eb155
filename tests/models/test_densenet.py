"""DenseNets: what grows where, and images of odd sizes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models
from kdjax.errors import UserError
from kdjax.interop import torch as interop
from kdjax.models.densenet import DenseLayer, Transition
from tests.models.helpers import random_variables


def densenet(**fields) -> models.DenseNet:
    return models.DenseNet(num_classes=5, **({"blocks": (1, 2, 3), "growth": 4} | fields))


def shapes(module, height: int = 32, width: int = 32):
    x = jnp.zeros((2, height, width, 3))
    return jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), x)[0])


def test_a_layer_keeps_its_input():
    module = DenseLayer(growth=4)
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 6)).astype(np.float32)
    y = module.apply(random_variables(module, x), x)
    assert y.shape == (2, 3, 5, 10)
    np.testing.assert_array_equal(y[..., :6], x)


def test_a_transition_drops_an_odd_row_and_column():
    module = Transition()
    x = np.random.default_rng(0).normal(size=(2, 5, 7, 6)).astype(np.float32)
    variables = random_variables(module, x)
    y = module.apply(variables, x)
    assert y.shape == (2, 2, 3, 3)
    np.testing.assert_allclose(module.apply(variables, x[:, :4, :6]), y, rtol=1e-6)


def test_channels_of_the_stages():
    features = shapes(densenet(), 33, 18).features
    assert [x.shape[1:] for x in features.values()] == [(16, 9, 6), (8, 4, 7), (8, 4, 19)]


def test_the_extra_stage_grows_on():
    outputs = shapes(models.hsakd_branches(densenet()))
    assert outputs.backbone.features["stage3"].shape == (2, 8, 8, 19)
    assert outputs.branches["branch3"].features["stage4"].shape == (2, 8, 8, 19 + 3 * 4)
    assert [head.logits.shape for head in outputs.branches.values()] == [(2, 20)] * 3


def test_branches_have_no_counterpart():
    module = models.stage_branches(densenet())
    with pytest.raises(UserError, match="DenseNet with branches has no counterpart"):
        interop.import_state_dict(module, {"backbone.features.conv0.weight": np.zeros(1)})
