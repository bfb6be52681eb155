"""Features of a split are those of the network, batch by batch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from kdjax import config as configs
from kdjax import data
from kdjax.errors import UserError
from kdjax.networks import Network
from kdjax.transfer import features
from tests import tiny_runs as runs
from tests.networks import saved
from tests.tiny_runs import networks  # noqa: F401 (registers 'tiny')


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = configs.base()
    config.data.source = runs.write_arrays(tmp_path_factory.mktemp("data") / "tiny.npz")
    return config


@pytest.fixture(scope="module")
def network():
    return saved.network("tiny", 3)


def test_features_of_a_split(config, network):
    dataset = data.load(config)
    images = (dataset.test.images / 255 - dataset.mean) / dataset.std
    outputs = network.module().apply(network.variables, images.astype(np.float32))
    layers = features.layers_of(network)
    assert layers == ("stage1", "stage2", "embedding")
    vectors = features.extract(network, dataset, "test", layers=layers, batch_size=8)
    assert {each.shape[0] for each in vectors.values()} == {30}  # the last batch is not whole
    np.testing.assert_allclose(vectors["embedding"], outputs.embedding, atol=1e-4)
    for stage, maps in outputs.features.items():
        np.testing.assert_allclose(vectors[stage], np.mean(maps, axis=(1, 2)), atol=1e-4)
    config = config.copy_and_resolve_references()
    config.data.placement = "stream"
    streamed = features.extract(network, data.load(config), "test", batch_size=8)
    np.testing.assert_array_equal(streamed["embedding"], vectors["embedding"])


def test_branches_do_not_matter(config):
    branched = saved.network("tiny_aux", 3)
    dataset = data.load(config)
    found = features.extract(branched, dataset, "test", batch_size=8)
    expected = features.extract(branched.backbone, dataset, "test", batch_size=8)
    np.testing.assert_array_equal(found["embedding"], expected["embedding"])
    assert features.layers_of(branched) == ("stage1", "stage2", "embedding")


def test_layers_and_channels_that_do_not_fit(config, network):
    with pytest.raises(
        UserError, match="'stage3' is no layer of tiny; use stage1, stage2, embedding"
    ):
        features.check_layers(("stage3",), network, "--layers")
    with pytest.raises(UserError, match="names 'stage1' twice"):
        features.check_layers(("stage1", "stage1"), network, "--layers")
    images = dataclasses.replace(network.spec.input, channels=1)
    gray = Network(dataclasses.replace(network.spec, input=images), network.variables)
    with pytest.raises(UserError, match="takes images of 1 channels, the data has 3"):
        features.extract(gray, data.load(config), "test")
