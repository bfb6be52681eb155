"""A family of networks and a form in a user's own config file: trained, evaluated, exported."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

from kdjax import models, networks
from kdjax.errors import UserError
from kdjax.interop import torch as interop
from kdjax.models import registry
from tests import tiny_runs as runs
from tests.networks import saved

# Without BatchNorm, too: a collection of variables that other networks have is missing.
FILE = """
import flax.linen as nn
from kdjax import config as configs
from kdjax import models
from kdjax.models import layers


class Plain(models.StagedNetwork):
    width: int = 4

    @property
    def num_stages(self):
        return 2

    @property
    def stride(self):
        return 2

    @nn.nowrap
    def stem(self, images, train):
        return layers.conv(self.width, 3, dtype=self.dtype, name="stem_conv")(images)

    @nn.nowrap
    def stage(self, x, number, train):
        stride = min(number, 2)
        conv = layers.conv(self.width, 3, stride, dtype=self.dtype, name=f"stage{number}_conv")
        return nn.relu(conv(x))


NAMES = [("stem_conv", "stem"), (r"stage(\\d)_conv", r"body.\\1"), ("classifier", "fc")]
models.register("plain", Plain, torch_names=NAMES)
models.register("plain_wide", Plain, torch_names=NAMES, width=8)
models.register_form("twice", models.stage_branches)


def get_config(source=""):
    config = configs.base()
    config.networks = ("plain_wide",)
    config.data.source, config.data.augmentation = source, "none"
    config.epochs, config.batch_size, config.evaluation.batch_size = 1, 48, 16
    return config
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    """The --config of the file; what it registers is forgotten after the test."""
    monkeypatch.setattr(registry.NETWORKS, "_entries", dict(registry.NETWORKS))
    monkeypatch.setattr(registry.FORMS, "_entries", dict(registry.FORMS))
    file = tmp_path / "my_config.py"
    file.write_text(FILE)
    return f"--config={file}:{runs.write_arrays(tmp_path / 'tiny.npz')}"


def test_one_file_is_all_that_a_family_needs(call, config, tmp_path):
    workdir = f"--workdir={tmp_path / 'run'}"
    (output,) = runs.finish(runs.start(config, workdir))  # two steps, in a process of its own
    assert "epoch 1/1  step 2" in output
    with pytest.raises(UserError, match="unknown network 'plain_wide'"):
        networks.load(tmp_path / "run")
    status, output, errors = call("--job=evaluate", config, workdir)
    assert (status, errors) == (0, []) and "network_0  top-1" in output

    network = networks.load(tmp_path / "run")
    assert network.spec.name == "plain_wide" and set(network.variables) == {"params"}
    outputs = network.module().apply(network.variables, np.zeros((2, 8, 8, 3), np.float32))
    assert outputs.logits.shape == (2, runs.CLASSES) and outputs.embedding.shape == (2, 8)
    state = interop.export_state_dict(network.module(), network.variables)
    assert set(state) == {"stem.weight", "body.1.weight", "body.2.weight", "fc.weight", "fc.bias"}
    again, report = interop.import_state_dict(network.module(), state)
    assert report.dialect == "registered"
    np.testing.assert_array_equal(
        again["params"]["stage2_conv"]["kernel"],
        network.variables["params"]["stage2_conv"]["kernel"],
    )


def test_forms_register_too(config, tmp_path):
    spec = importlib.util.spec_from_file_location("my_config", tmp_path / "my_config.py")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    network = saved.network("plain_twice", 3)
    assert set(network.variables["params"]) == {"backbone", "branch1"}
    networks.save(tmp_path / "there", network, {})
    written = json.loads(saved.metadata_file(tmp_path / "there").read_text())["metadata"]
    assert written["networks"][0]["spec"]["form"] == {"name": "twice"}
    assert networks.load(tmp_path / "there").spec.full_name == "plain_twice"
    with pytest.raises(ValueError, match="'plain' is registered already"):
        models.register("plain", models.CifarResNet)
    with pytest.raises(ValueError, match="suffix 'aux' is registered already"):
        models.register_form("mine", models.stage_branches, suffix="aux")
    with pytest.raises(ValueError, match="suffix 'aux6' of form 'mine' may have small letters"):
        models.register_form("mine", models.stage_branches, suffix="aux6")
