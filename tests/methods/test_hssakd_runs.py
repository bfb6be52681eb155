"""HSAKD from the command line: teachers, frozen ones, and their students."""

from __future__ import annotations

import re

import jax
import numpy as np
import pytest

from kdjax.networks import load
from kdjax.runs import metrics
from kdjax.runs.checkpoints import Checkpoints
from tests import tiny_runs as runs
from tests.tiny_runs import networks  # noqa: F401 (registers 'tiny')

CONFIG = f"--config={runs.ROOT}/configs/hsakd.py:digits,tiny,tiny"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return runs.write_arrays(tmp_path_factory.mktemp("data") / "tiny.npz")


def settings(source, **changes) -> list[str]:
    """Flags of a run of seconds, as `runs.settings` has them."""
    changes = {"data__image_size": 0, "teacher__epochs": 1, "epochs": 1} | changes
    return [CONFIG, *runs.settings(source, **changes)[1:]]


def read_state(workdir):
    _, state = Checkpoints(workdir / "checkpoints", "mean/top1", read_only=True).restore_tree()
    return state


def assert_same(actual, expected) -> None:
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_teacher_and_student_as_in_the_docstring(call, source, tmp_path):
    """`configs/hsakd.py:digits` as it stands, but for its networks, data and length."""
    workdir = tmp_path / "run"
    flags = (*settings(source), f"--workdir={workdir}")
    status, output, errors = call(*flags)
    assert status == 0, errors
    assert "teacher tiny: " in output and "student tiny: " in output

    names = [f"network_0{branch}" for branch in ("", "/branch1", "/branch2/joint")]
    for directory in (workdir / "teacher", workdir):
        row = metrics.read(directory / "metrics.jsonl")[-1]
        assert {f"{name}/top1" for name in names} <= set(row)
        assert {f"train/{name}/accuracy" for name in names} <= set(row)
        assert row["mean/top1"] == row["network_0/top1"]
        found = load(directory)
        assert (found.spec.full_name, found.spec.num_classes) == ("tiny_aux", runs.CLASSES)
        assert ("train/joint_cross_entropy" in row) == (directory != workdir)
        assert ("train/joint_kl" in row) == (directory == workdir)
    teacher = load(workdir / "teacher").variables
    assert_same(read_state(workdir)["model_state"]["constants"]["teacher"], teacher)

    _, output, _ = call("--job=evaluate", f"--workdir={workdir}")
    assert re.search(rf"^network_0 +top-1 +{100 * row['network_0/top1']:.2f} %", output, re.M)


@pytest.mark.slow
def test_a_frozen_backbone_makes_a_whole_teacher(call, source, tmp_path):
    plain, frozen, student = (tmp_path / name for name in ("plain", "frozen", "student"))
    runs.finish(runs.start(*runs.settings(source, epochs=1), f"--workdir={plain}"))
    heads = {
        "method": "hssakd_teacher",
        "hssakd__freeze_backbone": True,
        "teacher__checkpoint": plain,
    }
    status, _, errors = call(*settings(source, **heads), f"--workdir={frozen}")
    assert status == 2 and "best='mean/top1' never changes with a frozen backbone" in errors[0]
    assert not frozen.exists()

    heads["evaluation__best"] = "network_0/branch2/joint/top1"
    flags = settings(source, **heads, optimizer__weight_decay=0.1)
    runs.finish(runs.start(*flags, f"--workdir={frozen}"))
    rows = [metrics.read(directory / "metrics.jsonl")[-1] for directory in (plain, frozen)]
    assert rows[0]["network_0/top1"] == rows[1]["network_0/top1"]

    whole, backbone = load(frozen), load(plain)
    assert whole.spec.full_name == "tiny_aux"
    for name, collection in backbone.variables.items():
        assert_same(whole.variables[name]["backbone"], collection)
    flags = settings(source, teacher__checkpoint=frozen)
    runs.finish(runs.start(*flags, f"--workdir={student}"))
    assert not (student / "teacher").exists()
    row = metrics.read(student / "metrics.jsonl")[-1]
    assert row["train/joint_kl"] > 0


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"teacher__method": "hssakd_student"}, "'hssakd_student' needs a teacher itself"),
        ({"hssakd__freeze_backbone": True}, "'hssakd_teacher' needs a teacher itself"),
        ({"hssakd__transformations": "flips"}, "transformations='flips' is unknown"),
    ],
)
def test_refused_with_one_line(call, source, tmp_path, changes, pattern):
    flags = settings(source, **changes)
    status, _, errors = call(*flags, f"--workdir={tmp_path / 'run'}")
    assert status == 2 and len(errors) == 1
    assert pattern in errors[0]
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(("size", "name"), [((8, 6), "rotations"), ((8, 6), "both")])
def test_images_that_cannot_be_transformed(call, tmp_path, size, name):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (16, *size, 3)).astype(np.uint8)
    labels = np.arange(16) % 2
    splits = {f"{split}_images": images for split in ("train", "test")}
    splits |= {f"{split}_labels": labels for split in ("train", "test")}
    np.savez(tmp_path / "wide.npz", **splits)
    changes = {"method": "hssakd_teacher", "hssakd__transformations": name}
    flags = settings(f"arrays:{tmp_path / 'wide.npz'}", **changes)
    status, _, errors = call(*flags, f"--workdir={tmp_path / 'run'}")
    assert status == 2 and "8x6 pixels cannot be rotated" in errors[0]
    assert not (tmp_path / "run").exists()
