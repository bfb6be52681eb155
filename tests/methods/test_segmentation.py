"""The method 'segmentation': devices, transfer of trained stages, and a run by the command line."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdjax
from kdjax import compaction, methods, networks
from kdjax import config as configs
from kdjax.errors import UserError
from kdjax.methods.segmentation_evaluation import SEGMENTATION
from kdjax.models import Cohort
from kdjax.networks import InputSpec, Network, NetworkSpec
from kdjax.parallel import AXIS
from kdjax.training import step as training
from tests import tiny_runs
from tests.models.helpers import random_variables, tiny
from tests.tiny_runs import masks as runs
from tests.tiny_runs import networks as _tiny  # noqa: F401 (registers 'tiny')

NO_DROPOUT = {"dropout": 0.0, "auxiliary_dropout": 0.0}
OPTIONS = {"output_stride": 1, "rate": 1, "width": 6, "crop": (8, 10), **NO_DROPOUT}


@pytest.mark.slow
def test_one_step_on_one_device_is_that_on_four():
    """Pixels that count nowhere are spread unevenly, and BatchNorm is shared."""
    images, masks = runs.images_and_masks(8, size=10)
    masks[2:4] = 255
    batch = {"image": images / np.float32(255), "masks": masks.astype(np.int32)}
    batch |= {"label": np.zeros(8, np.int32), "index": np.arange(8, dtype=np.int32)}
    network = tiny(num_classes=runs.CLASSES, blocks=(1, 1), widths=(4, 8), axis_name=AXIS)
    method = methods.segmentation(
        Cohort((network,)), **OPTIONS, class_weights=(0.5, 1.0, 2.0), axis_name=AXIS
    )
    tx = optax.sgd(0.1, momentum=0.9)
    state = training.init_state(method, tx, jax.random.key(0), (10, 10, 3))
    step = training.train_step(method, tx, lambda constants, batch, *_: batch, seed=0)

    def run(devices):
        split = jax.tree.map(lambda x: x.reshape(devices, 1, -1, *x.shape[1:]), batch)
        mapped = jax.vmap(step, in_axes=(None, None, 0), axis_name=AXIS)
        return jax.tree.map(lambda x: x[0], jax.jit(mapped)(state, {}, split))

    (one, one_metrics), (four, four_metrics) = run(1), run(4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6),
        (one.params, one.model_state, one_metrics),
        (four.params, four.model_state, four_metrics),
    )
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), one.params, state.params)
    assert all(jax.tree.leaves(moved))


def test_what_fills_a_batch_counts_nowhere():
    random = np.random.default_rng(0)
    logits = jnp.asarray(random.normal(size=(3, 4, 4, 3)), jnp.float32)
    labels = jnp.asarray(random.integers(0, 2, (3, 4, 4)))
    logits = logits.at[..., 2].set(-9)
    padded = SEGMENTATION.sums(logits, labels, jnp.array([1.0, 1.0, 0.0]), 3)
    alone = SEGMENTATION.sums(logits[:2], labels[:2], jnp.ones(2), 3)
    jax.tree.map(np.testing.assert_array_equal, padded, alone)
    metrics = SEGMENTATION.metrics(jax.tree.map(np.float64, alone), 2.0, ("a", "b", "c"))
    assert metrics["absent_classes"] == 1 and "iou/c" not in metrics
    assert metrics["miou"] == pytest.approx((metrics["iou/a"] + metrics["iou/b"]) / 2)
    assert metrics["pixel_accuracy"] == np.mean(logits[:2].argmax(-1) == labels[:2])


def start_of(tmp_path, network: Network):
    """The initial state of a segmentation run of `tiny` that starts from a network."""
    networks.save(tmp_path / "start", network, {})
    config = configs.base()
    methods.use(config, "segmentation")
    config.networks, config.data.augmentation = ("tiny",), "none"
    config.segmentation.update({**OPTIONS, "auxiliary_weight": 0.0})
    config.start.checkpoint = str(tmp_path / "start")
    method = methods.create(config, num_classes=runs.CLASSES, axis_name=None)
    params, model_state = method.init(jax.random.key(1), jnp.zeros((2, 8, 8, 3)))
    return method, params["cohort"]["network_0"], model_state["batch_stats"]["network_0"]


def test_stages_start_from_a_compact_network_of_other_classes(tmp_path):
    spec = NetworkSpec("tiny", 7, InputSpec((8, 8)))
    variables = random_variables(spec.build())
    for layer in ("conv1", "bn1"):
        for name, array in variables["params"]["stage2_block0"][layer].items():
            array[..., 3:] = 0
            del name
    smaller = compaction.remove_filters(spec.build(), variables)
    compact = Network(
        NetworkSpec("tiny", 7, InputSpec((8, 8)), compaction=smaller.network.compaction),
        smaller.variables,
    )
    method, params, statistics = start_of(tmp_path, compact)
    assert method.form.name == "deeplab"
    assert params["backbone"]["stage2_block0"]["conv1"]["kernel"].shape[-1] == 3
    assert "classifier" not in params["backbone"] and params["head"]["classifier"]["bias"].size == 3
    for mine, trained in (
        (params["backbone"], compact.variables["params"]),
        (statistics["backbone"], compact.variables["batch_stats"]),
    ):
        for name in mine:
            jax.tree.map(np.testing.assert_array_equal, mine[name], trained[name])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.views": 2}, "config.data.views=2: method 'segmentation' augments images and masks"),
        ({"data.augmentation": "crop"}, "config.data.augmentation='crop': method"),
        ({"segmentation.crop": (8,)}, "config.segmentation: crop=(8,): give height and width"),
        ({"segmentation.largest_scale": 0.1}, "largest_scale=0.1 is less than"),
        ({"segmentation.output_stride": 3}, "output_stride=3: 3 stages behind a stem of stride 1"),
        ({"segmentation.class_weights": (1.0,)}, "class_weights has 1 numbers; give 3"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    config = configs.base()
    methods.use(config, "segmentation")
    config.networks, config.data.augmentation = ("resnet8",), "none"
    config.segmentation.output_stride = 4
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError) as caught:
        configs.validate(config)
        methods.create(config, num_classes=3, axis_name=None)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two epochs by the command line, and its data."""
    folder = tmp_path_factory.mktemp("segmentation")
    source = runs.write_arrays(folder / "it.npz")
    flags = runs.settings(source)
    (output,) = tiny_runs.finish(tiny_runs.start(*flags, f"--workdir={folder / 'run'}"))
    return folder, source, output


@pytest.mark.slow
def test_a_run_by_the_command_line(run, call):
    folder, _, output = run
    assert "epoch 2/2  step 4" in output and "mIoU % network_0" in output
    rows = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    last = rows[-1]
    assert last["mean/miou"] == last["network_0/miou"]
    assert {"network_0/iou/ground", "train/auxiliary", "network_0/pixel_accuracy"} <= last.keys()
    found = kdjax.evaluate(kdjax.load_run(folder / "run"), checkpoint="latest")
    assert found["network_0/miou"] == pytest.approx(last["network_0/miou"])
    status, output, errors = call("--job=show-predictions", f"--workdir={folder / 'run'}")
    assert (status, errors) == (0, []) and "network_0: 5 pictures" in output
    assert (folder / "run/predictions.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_its_network_is_read_and_segments(run):
    network = networks.load(run[0] / "run")
    assert network.spec.full_name == "tiny_deeplab1" and network.spec.num_classes == runs.CLASSES
    images, _ = runs.images_and_masks(2)
    mean, std = map(np.array, network.spec.input.normalization)
    shown = ((images / 255 - mean) / std).astype(np.float32)
    outputs = network.module().apply(network.variables, shown)
    assert outputs.logits.shape == (2, 12, 12, runs.CLASSES)


@pytest.mark.slow
def test_masks_and_methods_that_do_not_fit_are_refused(run, call, tmp_path):
    folder, source, _ = run
    workdir = f"--workdir={tmp_path / 'other'}"
    status, _, errors = call(*tiny_runs.settings(source), workdir)
    assert status == 2 and "have masks in place of a class" in errors[-1]
    plain = tiny_runs.write_arrays(tmp_path / "plain.npz")
    status, _, errors = call(*runs.settings(plain), workdir)
    assert status == 2 and "come without masks" in errors[-1] and len(errors) == 1
    status, _, errors = call("--job=export", f"--workdir={folder / 'run'}")
    assert status == 2 and "has no classifier of images" in errors[-1]
