"""Grad-CAM against what it is for networks with average pooling and one linear layer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models import create
from kdjax.transfer.grad_cam import grad_cam
from tests.models.helpers import random_variables
from tests.tiny_runs import networks  # noqa: F401 (registers 'tiny')

CLASSES = 4


@pytest.fixture(scope="module")
def network():
    return create("tiny", num_classes=CLASSES)


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(0).normal(size=(3, 8, 8, 3)), jnp.float32)


@pytest.fixture(scope="module")
def variables(network, images):
    return random_variables(network, images)


def test_at_the_last_stage_it_is_cam(network, variables, images):
    classes = jnp.array([1, 3, 0])
    last = network.num_stages
    maps = network.apply(variables, images, train=False).features[f"stage{last}"]
    weights = variables["params"]["classifier"]["kernel"].T[classes]  # [B, K]
    size = maps.shape[1] * maps.shape[2]
    expected = np.maximum(np.einsum("bhwk,bk->bhw", maps, weights) / size, 0)
    assert expected.any()
    actual = jax.jit(lambda: grad_cam(network, variables, images, classes, stage=last))()
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


def test_every_stage_has_its_own_size(network, variables, images):
    maps = grad_cam(network, variables, images, jnp.zeros(3, jnp.int32), stage=1)
    features = network.apply(variables, images, train=False, stop=1).features["stage1"]
    assert maps.shape == features.shape[:3] and float(maps.min()) >= 0


def test_a_stage_that_there_is_not(network, variables, images):
    with pytest.raises(ValueError, match=r"stage=3: the network has stages 1\.\.2"):
        grad_cam(network, variables, images, jnp.zeros(3, jnp.int32), stage=3)
