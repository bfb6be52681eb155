"""`--job=compact`: networks without their zero filters, in directories of their own."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from kdjax import compaction, models
from kdjax import config as configs
from kdjax.cli import cost_table
from kdjax.networks import InputSpec, Network, NetworkSpec, load, store
from kdjax.runs import workdir as workdirs
from kdjax.runs.checkpoints import Checkpoints
from tests import tiny_runs as runs
from tests.compaction.removed import assert_close, images, logits, pruned
from tests.models.families import random_variables
from tests.networks.saved import metadata_file, run_metadata
from tests.tiny_runs import networks  # noqa: F401 (registers 'tiny')


def save(directory, name: str = "tiny", rate: float = 0.5) -> Network:
    """Writes a network of random weights, filters of which are zero."""
    network = models.create(name, num_classes=runs.CLASSES)
    variables = random_variables(network, dtype=np.float32)
    params = variables["params"]
    inside = params.get("backbone", params)
    plain = models.create("tiny", num_classes=runs.CLASSES)
    smaller, _ = pruned(inside, compaction.filter_groups(plain), rate)
    variables["params"] = params | {"backbone": smaller} if "backbone" in params else smaller
    found = Network(NetworkSpec.of(name, runs.CLASSES), variables)
    store.save(directory, found, {})
    return found


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """What a network with zero filters is in, not to be written to."""
    path = tmp_path_factory.mktemp("networks") / "pruned"
    save(path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir as that of a run of two networks, of 16x16 pixels, pruned at a rate of 0.4."""
    folder = tmp_path_factory.mktemp("runs")
    config = configs.base()
    config.networks, config.batch_size = ("tiny", "tiny"), 16
    config.data.source = runs.write_arrays(folder / "tiny.npz")
    config.data.image_size = 16
    config.pruning.method = "sfp"
    workdirs.claim(folder / "run", config)
    saved = {name: save(folder / name).variables for name in ("network_0", "network_1")}
    tree = {
        "params": {"cohort": {name: each["params"] for name, each in saved.items()}},
        "model_state": {"batch_stats": {name: each["batch_stats"] for name, each in saved.items()}},
    }
    specs = [NetworkSpec("tiny", runs.CLASSES, InputSpec((16, 16)))] * 2
    checkpoints = Checkpoints(folder / "run" / "checkpoints", "none")
    checkpoints.save(6, tree, {}, run_metadata(tree, *specs))
    checkpoints.close()
    return folder / "run"


class FakeProgram:
    """A program that takes a second a call, and does not say of how many operations."""

    flops = None

    def __init__(self, *arguments):
        pass

    def __call__(self, times: int = 1) -> float:
        return float(times)


@pytest.fixture
def fast(monkeypatch):
    """Latency is not measured, since compiling takes most of the job's time."""
    monkeypatch.setattr(cost_table, "Program", FakeProgram)


def compact(call, workdir, output, *flags) -> str:
    """What the job prints."""
    job = ("--job=compact", f"--workdir={workdir}", f"--output={output}")
    status, printed, errors = call(*job, *flags)
    assert status == 0, errors
    return printed


def table(printed: str) -> dict[str, tuple[str, str, float]]:
    """The rows of the table of costs, by their names."""
    rows = re.findall(r"^(\S.*?)  +(\S.*?)  +(\S.*?)  +(\d+\.\d+)$", printed, re.MULTILINE)
    return {name: (before, after, float(ratio)) for name, before, after, ratio in rows}


def test_network_computes_the_same_with_fewer_filters(call, directory, tmp_path):
    printed = compact(call, directory, tmp_path / "small")
    before, after = load(directory), load(tmp_path / "small")
    x = images().astype(np.float32)
    found, expected = (logits(each.module(), each.variables, x) for each in (after, before))
    assert_close(found, expected, 1e-5)
    assert len(after.variables["params"]["stage2_block0"]["bn1"]["scale"]) == 4
    assert re.search(r"^stage2_block0/conv1 +8 +4$", printed, re.MULTILINE)
    rows = table(printed)
    sizes = [models.parameter_count(each.variables["params"]) for each in (before, after)]
    assert rows["parameters"][:2] == tuple(f"{size:,}" for size in sizes)
    macs = [models.multiply_adds(each.module(), (32, 32, 3)) for each in (before, after)]
    assert rows["multiply-adds"][2] == pytest.approx(macs[1] / macs[0], abs=1e-3)
    assert rows["FLOPs, as XLA counts"][2] < 1
    assert {"latency, batch 1", "latency, batch 128"} <= set(rows)
    assert "images of 32x32x3" in printed and "formula" not in printed
    source = json.loads(metadata_file(tmp_path / "small").read_text())["metadata"]["source"]
    assert source["workdir"] == str(directory)
    again = compact_error(call, tmp_path / "small", tmp_path / "smaller")
    assert "is zero: there is nothing to remove" in again


@pytest.mark.slow
@pytest.mark.parametrize("filters", ["conv", "coupled"])
def test_a_trained_network_is_compacted_and_evaluated(call, tmp_path, filters):
    source = runs.write_arrays(tmp_path / "tiny.npz")
    changes = {"pruning__method": "ghfp", "pruning__rate": 0.5, "pruning__filters": filters}
    flags = runs.settings(source, networks="('tiny','tiny')", **changes)
    assert call(*flags, f"--workdir={tmp_path / 'run'}")[0] == 0
    compact(call, tmp_path / "run", tmp_path / "small", "--network_index=1")
    status, expected, _ = call("--job=evaluate", f"--workdir={tmp_path / 'run'}")
    assert status == 0
    status, found, _ = call("--job=evaluate", *flags, f"--workdir={tmp_path / 'small'}")
    assert status == 0
    top1 = r"top-1 +([\d.]+) %"
    assert re.search(top1, found)[1] == re.search(f"network_1 +{top1}", expected)[1]


def test_which_network_of_a_run(call, fast, run, tmp_path):
    flags = ("--network_index=1", "--checkpoint=latest")
    printed = compact(call, run, tmp_path / "small", *flags)
    assert "images of 16x16x3" in printed
    source = json.loads(metadata_file(tmp_path / "small").read_text())["metadata"]["source"]
    assert source == {"workdir": str(run), "network_index": 1, "checkpoint": "latest"}


def test_recalibration_changes_statistics_and_says_so(call, fast, run, tmp_path):
    printed = compact(call, run, tmp_path / "small", "--recalibrate=2", "--checkpoint=latest")
    assert "outputs have changed" in printed
    before = load(run, checkpoint="latest")
    after = load(tmp_path / "small")
    assert not after.spec.compaction.constants
    left = after.spec.compaction.masks["stage1_block0/conv1"]
    means = [each.variables["batch_stats"]["stem_bn"]["mean"] for each in (before, after)]
    assert np.abs(means[0][after.spec.compaction.masks["stem_conv"]] - means[1]).max() > 0
    scales = [each.variables["params"]["stage1_block0"]["bn1"]["scale"] for each in (before, after)]
    np.testing.assert_array_equal(scales[0][left], scales[1])


def test_numbers_of_filters_are_rounded_up(call, fast, tmp_path):
    save(tmp_path / "pruned", rate=0.7)
    compact(call, tmp_path / "pruned", tmp_path / "small", "--multiple=4")
    masks = load(tmp_path / "small").spec.compaction.masks
    assert {int(mask.sum()) for mask in masks.values()} == {4}


def test_a_network_with_branches_loses_them(call, fast, tmp_path):
    before = save(tmp_path / "pruned", "tiny_aux")
    printed = compact(call, tmp_path / "pruned", tmp_path / "small")
    after = load(tmp_path / "small")
    assert after.spec.full_name == "tiny" and "tiny, compact, 4 classes" in printed
    x = images().astype(np.float32)
    plain = before.backbone
    expected = logits(plain.module(), plain.variables, x)
    assert_close(logits(after.module(), after.variables, x), expected, 1e-5)


@pytest.mark.parametrize(("rate", "ratio"), [(0.3, 0.578), (0.4, 0.460)])
def test_formula_of_the_papers(fast, rate, ratio):
    name = "sfp_resnet20"
    network = models.create(name, num_classes=10)
    variables = random_variables(network, dtype=np.float32)
    variables["params"], _ = pruned(variables["params"], compaction.filter_groups(network), rate)
    smaller = compaction.remove_filters(network, variables)
    pair = (
        Network(NetworkSpec(name, 10), variables),
        Network(NetworkSpec(name, 10, compaction=smaller.network.compaction), smaller.variables),
    )
    rows = table(cost_table.cost_table(*pair, (32, 32, 3), rate))
    row = rows[f"by the papers' formula, rate {rate}"]
    assert row[0] == "40.550 M" and row[2] == pytest.approx(ratio, abs=5e-4)
    assert "FLOPs, as XLA counts" not in rows  # it does not count them
    rows = table(cost_table.cost_table(*pair, (16, 16, 3), rate))
    assert not any("formula" in name for name in rows)


# Refusals


def compact_error(call, workdir, output, *flags) -> str:
    """The one line that the job is refused with; it must not have written anything."""
    job = ("--job=compact", f"--workdir={workdir}", f"--output={output}")
    status, _, errors = call(*job, *flags)
    assert status == 2 and len(errors) == 1, errors
    assert not output.exists() or output == workdir
    return errors[0]


def test_nothing_is_zero(call, tmp_path):
    save(tmp_path / "whole", rate=0)
    message = compact_error(call, tmp_path / "whole", tmp_path / "small")
    assert "is zero: there is nothing to remove; train with config.pruning.method" in message


def test_nothing_can_go(call, directory, tmp_path):
    message = compact_error(call, directory, tmp_path / "small", "--multiple=8")
    assert "can be removed" in message and "--multiple rounds up" in message


def test_output_is_missing_or_in_use(call, directory):
    status, _, errors = call("--job=compact", f"--workdir={directory}")
    assert status == 2 and errors == ["error: --job=compact needs --output"]
    message = compact_error(call, directory, directory)
    assert f"--output={directory} is in use" in message


def test_recalibration_needs_images(call, directory, tmp_path):
    message = compact_error(call, directory, tmp_path / "small", "--recalibrate=1")
    assert "add --config" in message


def test_a_wrong_result_is_not_written(call, fast, directory, tmp_path, monkeypatch):
    right = compaction.remove_filters

    def wrong(*arguments, **options):
        result = right(*arguments, **options)
        classifier = result.variables["params"]["classifier"]
        classifier["bias"] = classifier["bias"] * 1.01
        return result

    monkeypatch.setattr(compaction, "remove_filters", wrong)
    message = compact_error(call, directory, tmp_path / "small")
    assert "logits differ from the network's by" in message and "nothing was written" in message
