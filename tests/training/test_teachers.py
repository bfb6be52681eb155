"""A teacher that is trained first, in the workdir of its student."""

from __future__ import annotations

import json
import shutil

import pytest

from kdjax import config as configs
from kdjax.errors import UserError
from kdjax.runs import metrics
from kdjax.training import teachers
from tests import tiny_runs as runs
from tests.tiny_runs import networks  # noqa: F401 (registers 'tiny')


def settings(tmp_path, **changes) -> list[str]:
    source = runs.write_arrays(tmp_path / "tiny.npz")
    changes = {"method": "kd", "teacher__network": "tiny", "teacher__epochs": 1} | changes
    return runs.settings(source, **changes)


def config(**changes) -> configs.ConfigDict:
    made = configs.base()
    made.method, made.epochs = "kd", 7
    made.teacher.update({"network": "resnet20"} | changes)
    return made


def test_teacher_then_student_in_one_command(call, tmp_path):
    flags, workdir = settings(tmp_path), tmp_path / "run"
    status, output, errors = call(*flags, f"--workdir={workdir}")
    assert (status, errors) == (0, [])
    assert output.startswith("teacher tiny: ") and "student tiny: " in output
    rows = metrics.read(workdir / "teacher" / "metrics.jsonl")
    assert [row["epoch"] for row in rows] == [1]
    student = metrics.read(workdir / "metrics.jsonl")
    assert [row["epoch"] for row in student] == [1, 2]
    assert "train/distillation" in student[0] and "train/distillation" not in rows[0]
    frozen = json.loads((workdir / "config.json").read_text())
    assert frozen["teacher"]["checkpoint"] == ""

    # A finished teacher is not touched again, and both may move together.
    moved = shutil.move(workdir, tmp_path / "moved")
    status, output, _ = call(*flags, "--config.epochs=3", f"--workdir={moved}")
    assert status == 0 and output.startswith("resumed from step 12")
    assert call("--job=evaluate", f"--workdir={moved}")[0] == 0


def test_an_unfinished_teacher_is_trained_on(call, tmp_path):
    flags, workdir = settings(tmp_path, teacher__epochs=2), tmp_path / "run"
    teacher = runs.settings(f"arrays:{tmp_path / 'tiny.npz'}", epochs=1)
    assert call(*teacher, f"--workdir={workdir / 'teacher'}")[0] == 0
    # It is the same run, but for its length.
    own = json.loads((workdir / "teacher" / "config.json").read_text())
    assert configs.differences(own, configs.plain(expected(flags))) == []
    status, output, _ = call(*flags, f"--workdir={workdir}")
    assert status == 0 and "resumed from step 6" in output
    assert len(metrics.read(workdir / "teacher" / "metrics.jsonl")) == 2


def expected(flags: list[str]) -> configs.ConfigDict:
    from kdjax.cli.command_line import parse

    return teachers.config_of_teacher(parse(["kdjax", *flags, "--workdir=x"]).config)


def test_config_of_the_teacher():
    made = teachers.config_of_teacher(config(method="cross_entropy", epochs=3))
    assert (made.method, tuple(made.networks), made.epochs) == ("cross_entropy", ("resnet20",), 3)
    assert teachers.config_of_teacher(config()).epochs == 7
    assert made.teacher.network == "" and made.is_locked


def test_no_teacher_is_trained_where_none_is_needed():
    assert teachers.config_of_teacher(config(checkpoint="somewhere")) is None
    assert teachers.config_of_teacher(config(network="")) is None
    other = config()
    other.method = "cross_entropy"
    assert teachers.config_of_teacher(other) is None


def test_a_teacher_cannot_need_a_teacher():
    with pytest.raises(UserError, match=r"config\.teacher\.method='kd' needs a teacher itself"):
        teachers.config_of_teacher(config(method="kd"))


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"networks": "('tinny',)"}, "unknown network 'tinny'"),
        ({"teacher__network": "tinny"}, "unknown network 'tinny'"),
        ({"method": "hssakd_student"}, "branch"),
        ({"method": "fitnett"}, "config.method='fitnett' is unknown"),
    ],
)
def test_what_cannot_work_is_said_before_the_teacher_is_trained(call, tmp_path, changes, pattern):
    workdir = tmp_path / "run"
    status, _, errors = call(*settings(tmp_path, **changes), f"--workdir={workdir}")
    assert status == 2 and len(errors) == 1 and pattern in errors[0]
    assert not workdir.exists()
