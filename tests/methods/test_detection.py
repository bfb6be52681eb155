"""The method 'detection': devices, transfer of trained stages, and runs by the command line."""

from __future__ import annotations

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import kdjax
from experiments import kill_resume
from kdjax import compaction, methods, networks
from kdjax import config as configs
from kdjax.cli.command_line import parse
from kdjax.data.objects.columns import SplitObjects
from kdjax.data.splits import RecordSplit
from kdjax.detection.detector import rcnn
from kdjax.errors import UserError
from kdjax.interop import torch as interop
from kdjax.methods.detection_evaluation import DETECTION
from kdjax.models import Cohort, Form
from kdjax.networks import InputSpec, Network, NetworkSpec
from kdjax.parallel import AXIS
from kdjax.runs import metrics
from kdjax.training import stages
from kdjax.training import step as training
from kdjax.training.preemption import Preempted, Preemption
from kdjax.tree import leaves
from tests import tiny_runs
from tests.models.helpers import random_variables
from tests.tiny_runs import boxes as runs
from tests.tiny_runs import networks as _tiny  # noqa: F401 (registers 'tiny_four')

CLASSES = 2
OPTIONS = {
    name.removeprefix("detection."): value
    for name, value in runs.SETTINGS.items()
    if name.startswith("detection.")
} | {"anchor": 8}


def network(**options):
    spec = NetworkSpec("tiny_four", CLASSES, InputSpec((64, 64)))
    return spec.build(**options)


def batch_of_four():
    """Images of differing numbers of objects, the last without any."""
    valid = np.array([[True, True], [True, False], [True, True], [False, False]])
    boxes = np.array([[4, 4, 30, 28], [30, 20, 60, 60]], np.float32)
    return {
        "image": np.random.RandomState(0).standard_normal((4, 64, 64, 3)).astype(np.float32),
        "sizes": np.array([[64, 64], [64, 60], [64, 64], [50, 64]], np.int32),
        "boxes": boxes * valid[..., None],
        "classes": np.array([[1, 2], [2, 0], [1, 1], [0, 0]], np.int32),
        "valid": valid,
        "label": np.zeros(4, np.int32),
        "index": np.arange(4, dtype=np.int32),
    }


def stepped(devices: int, axis_name: str | None = AXIS, **options):
    """The state before and after a step, and its metrics."""
    member = network(axis_name=axis_name)
    method = methods.detection(Cohort((member,)), **OPTIONS, **options, axis_name=AXIS)
    tx = method.optimizer(optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.05)))
    state = training.init_state(method, tx, jax.random.key(0), (64, 64, 3))
    step = training.train_step(method, tx, lambda constants, batch, *_: batch, seed=0)
    split = jax.tree.map(lambda x: x.reshape(devices, 1, -1, *x.shape[1:]), batch_of_four())
    mapped = jax.vmap(step, in_axes=(None, None, 0), axis_name=AXIS)
    after, found = jax.jit(mapped)(state, {}, split)
    return state, *jax.tree.map(lambda x: x[0], (after, found))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["faster_rcnn", "cascade"])
def test_one_step_on_one_device_is_that_on_four(form):
    """Samples are counted over devices, and BatchNorm is shared; all parameters learn."""
    options = {"form": form, "batch_norm": "trained", "trained_stages": 5}
    before, one, one_metrics = stepped(1, **options)
    _, four, four_metrics = stepped(4, **options)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=5e-4, atol=5e-6),
        (one.params, one.model_state, one_metrics),
        (four.params, four.model_state, four_metrics),
    )
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), one.params, before.params)
    assert all(jax.tree.leaves(moved))
    assert all(np.isfinite(value).all() for value in one_metrics.values())


@pytest.mark.slow
def test_what_is_frozen_stays_as_it_is():
    """Weight decay included: stem, first stage and BatchNorm."""
    before, after, _ = stepped(1, trained_stages=3, batch_norm="frozen")
    old, new = (leaves(state.params["cohort"]["network_0"]) for state in (before, after))
    still = {path for path in old if np.array_equal(old[path], new[path])}
    expected = {
        path
        for path in old
        if path.startswith(("backbone/stem", "backbone/stage1")) or "/bn" in path or "_bn" in path
    }
    assert still == expected
    jax.tree.map(np.testing.assert_array_equal, before.model_state, after.model_state)


def test_detections_are_measured_in_the_stored_images():
    """Perfect ones on a canvas of half the size, a crowd that is not there, and a double."""
    objects = SplitObjects(
        sizes=np.array([[100, 80], [60, 60]], np.int32),
        starts=np.array([0, 2, 3]),
        boxes=np.array([[10, 20, 50, 60], [0, 0, 30, 30], [5, 5, 45, 55]], np.float32),
        labels=np.array([1, 2, 2], np.int32),
        areas=np.array([1600, 900, 2000], np.float32),
        ignored=np.array([False, True, False]),
    )
    split = RecordSplit(None, np.zeros(2, np.int32), objects=objects)
    rows = {
        "boxes": np.array([[[5, 10, 25, 30], [0, 0, 0, 0]], [[2.5, 2.5, 22.5, 27.5]] * 2]),
        "scores": np.array([[0.9, 0.0], [0.8, 0.6]]),
        "labels": np.array([[1, 0], [2, 2]]),
        "valid": np.array([[True, False], [True, True]]),
        "sizes": np.array([[50, 40], [30, 30]]),
    }
    found = DETECTION.metrics(rows, split, ("a", "b"))
    for name in ("ap", "ap/a", "ap/b", "voc07", "voc10", "ap_medium"):
        assert found[name] == pytest.approx(1), name
    assert "ap_large" not in found
    kept = {f"network_0/{name}": value for name, value in rows.items()}
    assert DETECTION.of_split(kept, split, ("a", "b"))["network_0/ap75"] == found["ap75"]
    rows["boxes"] = rows["boxes"] + 15
    assert DETECTION.metrics(rows, split, ("a", "b"))["ap"] == 0


def configured(**changes):
    config = configs.base()
    methods.use(config, "detection")
    config.networks, config.data.augmentation = ("tiny_four",), "none"
    config.detection.update(OPTIONS)
    config.update_from_flattened_dict(changes)
    return config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.views": 2}, "config.data.views=2: method 'detection' augments images and boxes"),
        ({"shared_stages": 1}, "config.shared_stages=1: networks of method 'detection' share"),
        ({"detection.min_sizes": ()}, "min_sizes=(): give at least one"),
        ({"detection.batch_norm": "trained"}, "batch_norm='trained' with trained_stages=3"),
        ({"detection.form": "yolo"}, "config.detection.form='yolo' is unknown"),
        ({"networks": ("resnet20",)}, "four stages at strides of 4, 8, 16 and 32"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(UserError) as caught:
        config = configured(**changes)
        configs.validate(config)
        methods.create(config, num_classes=CLASSES, axis_name=None)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.slow
def test_stages_start_from_a_compact_network_of_other_classes(tmp_path):
    spec = NetworkSpec("tiny_four", 7, InputSpec((64, 64)))
    variables = random_variables(spec.build(), np.zeros((1, 64, 64, 3), np.float32))
    for layer in ("conv1", "bn1"):
        for array in variables["params"]["stage4_block0"][layer].values():
            array[..., 3:] = 0
    smaller = compaction.remove_filters(spec.build(), variables)
    compact = Network(
        NetworkSpec("tiny_four", 7, InputSpec((64, 64)), compaction=smaller.network.compaction),
        smaller.variables,
    )
    networks.save(tmp_path / "start", compact, {})
    config = configured(**{"start.checkpoint": str(tmp_path / "start")})
    method = methods.create(config, num_classes=CLASSES, axis_name=None)
    params, model_state = jax.jit(method.init)(jax.random.key(1), jnp.zeros((1, 64, 64, 3)))
    params = params["cohort"]["network_0"]["backbone"]
    statistics = model_state["batch_stats"]["network_0"]["backbone"]
    assert params["stage4_block0"]["conv1"]["kernel"].shape[-1] == 3
    assert "classifier" not in params
    for mine, trained in ((params, "params"), (statistics, "batch_stats")):
        for name in mine:
            jax.tree.map(
                np.testing.assert_array_equal, mine[name], compact.variables[trained][name]
            )


@pytest.mark.slow
def test_stages_start_from_a_network_that_segments(tmp_path):
    spec = NetworkSpec.of("tiny_four_deeplab32", 3, InputSpec((64, 64)))
    spec = dataclasses.replace(
        spec, form=Form("deeplab", (*dict(spec.form.options, rate=1, width=4).items(),))
    )
    variables = random_variables(spec.build(), np.zeros((1, 64, 64, 3), np.float32))
    networks.save(tmp_path / "start", Network(spec, variables), {})
    config = configured(**{"start.checkpoint": str(tmp_path / "start")})
    method = methods.create(config, num_classes=CLASSES, axis_name=None)
    params, _ = jax.jit(method.init)(jax.random.key(1), jnp.zeros((1, 64, 64, 3)))
    mine = params["cohort"]["network_0"]["backbone"]
    trained = variables["params"]["backbone"]
    assert mine.keys() == trained.keys()
    jax.tree.map(np.testing.assert_array_equal, mine, trained)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two epochs by the command line, and its data."""
    folder = tmp_path_factory.mktemp("detection")
    source = runs.write_folder(folder / "it")
    flags = runs.settings(source)
    (output,) = tiny_runs.finish(tiny_runs.start(*flags, f"--workdir={folder / 'run'}"))
    return folder, source, output


@pytest.mark.slow
def test_a_run_by_the_command_line(run, call):
    folder, source, output = run
    assert "epoch 2/2  step 4" in output and "AP % network_0" in output
    rows = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    last = rows[-1]
    assert last["mean/ap"] == last["network_0/ap"]
    assert {"network_0/voc07", "train/network_0/boxes", "network_0/ap50"} <= last.keys()
    found = kdjax.evaluate(kdjax.load_run(folder / "run"), checkpoint="latest")
    assert found["network_0/ap"] == pytest.approx(last["network_0/ap"])
    status, output, _ = call("--job=evaluate", f"--workdir={folder / 'run'}", "--checkpoint=latest")
    assert status == 0 and f"AP {100 * last['network_0/ap']:6.2f} %  AP50" in output
    status, output, errors = call("--job=show-predictions", f"--workdir={folder / 'run'}")
    assert (status, errors) == (0, []) and "network_0: 3 pictures" in output
    assert (folder / "run/predictions.png").read_bytes()[:4] == b"\x89PNG"
    workdir = f"--workdir={folder / 'shown'}"
    status, output, errors = call("--job=show-batch", *runs.settings(source), workdir)
    assert (status, errors) == (0, []) and "4 of 4 pictures" in output


@pytest.mark.slow
def test_its_network_is_read_exported_and_detects(run, call, tmp_path):
    workdir = f"--workdir={run[0] / 'run'}"
    trained = networks.load(run[0] / "run")
    assert trained.spec.full_name == "tiny_four_rcnn" and trained.spec.num_classes == CLASSES
    images = np.zeros((1, 64, 64, 3), np.float32)
    logits, codes = jax.jit(trained.module().apply)(trained.variables, images)
    assert logits.shape == (1, 1, CLASSES + 1) and codes.shape == (1, 1, CLASSES + 1, 4)
    status, _, errors = call("--job=export", workdir)
    assert status == 2 and len(errors) == 1 and "has no classifier of images" in errors[0]
    file = tmp_path / "it.safetensors"
    status, _, errors = call("--job=export", "--formats=torch", f"--torch_file={file}", workdir)
    assert (status, errors) == (0, [])
    assert interop.count_classes(trained.module(), interop.read(file)) == CLASSES
    status, _, errors = call(
        *("--job=import-torch", f"--torch_file={file}", "--network=tiny_four_rcnn"),
        f"--workdir={tmp_path / 'imported'}",
    )
    assert status == 2 and len(errors) == 1 and str(file) in errors[0], errors
    with pytest.raises(UserError, match="Cascade R-CNN has no counterpart in torchvision"):
        interop.export_state_dict(rcnn(network(), heads=3), trained.variables)


@pytest.mark.slow
def test_objects_and_methods_that_do_not_fit_are_refused(run, call, tmp_path):
    _, source, _ = run
    workdir = f"--workdir={tmp_path / 'other'}"
    status, _, errors = call(*tiny_runs.settings(source), workdir)
    assert status == 2 and "have objects in place of a class" in errors[-1]
    plain = tiny_runs.write_arrays(tmp_path / "plain.npz")
    flags = runs.settings(plain, data__canvas=(), data__bad_boxes="refuse")
    status, _, errors = call(*flags, workdir)
    assert status == 2 and "learns from objects in boxes" in errors[-1] and len(errors) == 1


@pytest.mark.slow
def test_an_interrupted_run_ends_as_the_uninterrupted_one(run, tmp_path, monkeypatch):
    whole, cut = run[0] / "run", tmp_path / "cut"
    config = functools.partial(parsed, runs.settings(run[1]))
    with monkeypatch.context() as patch:
        patch.setattr(Preemption, "requested", lambda self, step: step == 3)
        with pytest.raises(Preempted):
            stages.train(config(), cut)
    stages.train(config(), cut)
    # The row of the epoch that was cut has the means of its second part.
    assert kill_resume.differences(whole, cut) == ["metrics.jsonl"]
    last = [metrics.read(path / "metrics.jsonl")[-1] for path in (whole, cut)]
    assert last[0]["network_0/ap"] == last[1]["network_0/ap"]


def parsed(flags: list[str]):
    return parse(["kdjax", *flags, "--workdir=unused"]).config


@pytest.mark.slow
def test_evaluation_on_four_devices_is_that_on_one(run):
    flags = ("--job=evaluate", f"--workdir={run[0] / 'run'}", "--split=train", "--format=json")
    outputs = tiny_runs.finish(*(tiny_runs.start(*flags, devices=devices) for devices in (1, 4)))
    one, four = (json.loads(output[output.index("{") :]) for output in outputs)
    assert one.keys() == four.keys() and "network_0/ap50" in one
    for name, value in one.items():
        assert four[name] == (pytest.approx(value, abs=1e-6) if isinstance(value, float) else value)


@pytest.mark.slow
def test_pruning_while_a_detector_learns(run, tmp_path, call):
    """Filters of the network are pruned, those of the pyramid and the heads are not."""
    changes = {"pruning.method": "ghfp", "pruning.rate": 0.5, "pruning.filters": "conv_bn"}
    flags = runs.settings(run[1], **changes)
    status, _, errors = call(*flags, f"--workdir={tmp_path / 'run'}")
    assert (status, errors) == (0, [])
    pruned = kdjax.load_run(tmp_path / "run")
    assert pruned.rows[-1]["pruning/filters_pruned"] > 0
    state = pruned.restore("latest").state
    zero = {
        name: int((~array.any((0, 1, 2))).sum())
        for name, array in leaves(state.params["cohort"]["network_0"]).items()
        if name.endswith("kernel") and array.ndim == 4
    }
    assert sum(zero.values()) > 0
    assert not any(count for name, count in zero.items() if not name.startswith("backbone/"))
    # The pyramid reads the channels that would be removed.
    shrinking = (*flags, "--config.pruning.shrink_epochs=(1,)", f"--workdir={tmp_path / 'other'}")
    compacting = ("--job=compact", f"--workdir={tmp_path / 'run'}", f"--output={tmp_path / 'it'}")
    for refused in (shrinking, compacting):
        status, _, errors = call(*refused)
        assert status == 2 and len(errors) == 1, errors
