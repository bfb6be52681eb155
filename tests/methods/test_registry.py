"""What a registered method says of itself, and that its file of `configs/` makes a loss of it."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from kdjax import config as configs
from kdjax import methods
from kdjax import networks as trained_networks
from kdjax.methods import METHODS
from kdjax.networks import Network, NetworkSpec
from kdjax.settings import is_setting, rule
from tests import tiny_runs as runs
from tests.networks import saved
from tests.tiny_runs import networks as _tiny  # noqa: F401 (registers 'tiny_four')

CLASSES = 4


def config_of(name: str):
    """The config of a method's family on digits, with small networks and batches."""
    family = METHODS[name].family
    file = runs.ROOT / "configs" / f"{family}.py"
    spec = importlib.util.spec_from_file_location(f"config_{family}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    several = sum(entry.family == family for entry in METHODS.values()) > 2
    data = {"segmentation": "camvid", "detection": "coco256"}.get(name, "digits")
    config = module.get_config(f"{name},{data}" if several else data)
    config = ConfigDict(config.to_dict())
    methods.use(config, name)
    network = "tiny_four" if name == "detection" else "resnet8"
    config.networks = (network,) * max(METHODS[name].networks, 1)
    config.teacher.network, config.batch_size = "", 8
    return config


def teacher(name: str) -> Network | None:
    """A teacher of zeros, with HSAKD's branches where the method needs them."""
    if not methods.needs_teacher(config_of(name)):
        return None
    full_name = "resnet8_aux" if METHODS[name].section == "hssakd" else "resnet8"
    spec = NetworkSpec.of(full_name, num_classes=CLASSES)
    module = spec.build()
    images = jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    return Network(spec, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_method_says_all_of_itself(name):
    entry = METHODS[name]
    assert entry.source and entry.reads in ("logits", "features")
    assert (runs.ROOT / "configs" / f"{entry.family}.py").is_file()
    fields = dataclasses.fields(entry.settings)
    assert all(is_setting(field) and rule(field).text for field in fields)
    section = configs.base().get(entry.section, {})
    assert set(section) == {field.name for field in fields}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_its_config_makes_a_loss(name, tmp_path):
    config = config_of(name)
    if name == "linear_probe":
        trained_networks.save(tmp_path / "trained", saved.network("resnet8", CLASSES + 1), {})
        config.start.checkpoint = str(tmp_path / "trained")
    configs.validate(config)
    labels = np.arange(32) % CLASSES
    method = methods.create(
        config,
        num_classes=CLASSES,
        axis_name=None,
        train_labels=labels,
        teacher=teacher(name),
    )
    rows = config.batch_size * (1 + config.data.partners)
    size = 64 if name == "detection" else 8
    images = jax.ShapeDtypeStruct((rows, size, size, 3), np.float32)
    index = jax.ShapeDtypeStruct((rows,), np.int32)
    step = jax.ShapeDtypeStruct((), np.int32)
    batch = {"image": images, "label": index, "index": index, "step": step}
    if config.data.views > 1:
        batch["views"] = jax.ShapeDtypeStruct((rows, config.data.views, 8, 8, 3), np.float32)
    if METHODS[name].masks:
        batch["masks"] = jax.ShapeDtypeStruct((rows, 8, 8), np.int32)
    if name == "detection":
        of_objects = functools.partial(jax.ShapeDtypeStruct, dtype=np.int32)
        batch |= {"sizes": of_objects((rows, 2)), "classes": of_objects((rows, 3))}
        batch["boxes"] = jax.ShapeDtypeStruct((rows, 3, 4), np.float32)
        batch["valid"] = jax.ShapeDtypeStruct((rows, 3), bool)

    def one_step(key, batch):
        params, model_state = method.init(key, jnp.zeros((2, size, size, 3)))
        loss, (updated, metrics) = method.loss(params, model_state, batch, key)
        return loss, (updated, metrics), model_state

    loss, (updated, metrics), model_state = jax.eval_shape(one_step, jax.random.key(0), batch)
    assert loss.shape == () and loss.dtype == np.float32
    assert jax.tree.structure(updated) == jax.tree.structure(model_state)
    assert all(value.shape == () for value in metrics.values())
