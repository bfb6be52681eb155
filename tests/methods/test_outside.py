"""Methods in a user's own config file: one file each, trained for two steps, validated, listed."""

from __future__ import annotations

import re

import pytest

from kdjax.methods import METHODS, distillation
from tests import tiny_runs as runs
from tests.tiny_runs import networks  # noqa: F401 (registers 'tiny')

README = (runs.ROOT / "README.md").read_text()
# The README's own method: a regularizer of the network's logits.
REGULARIZER = re.search(r"^# my_config\.py\n(.*?)^```", README, re.MULTILINE | re.DOTALL)[1]
TEACHER_LOSS = '''
"""Squared distances between a student's logits and its teacher's."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from kdjax import config as configs
from kdjax import methods
from kdjax.settings import setting


@dataclasses.dataclass(frozen=True)
class LogitDistance:
    power: int = setting(2, "of the differences", at_least=1)


methods.register_teacher_loss(
    "logit_distance",
    lambda student, teacher, labels, settings, axis_name: jnp.mean(
        jnp.abs(student.logits - teacher.logits) ** settings.power, axis=-1
    ),
    settings=LogitDistance,
    weight=0.5,
    reads="logits",
    source="a test",
)


def get_config(argument=""):
    config = configs.distillation_run("logit_distance", "digits", ("tiny",))
    config.teacher.network, config.teacher.epochs = "tiny", 1
    return config.lock()
'''


@pytest.fixture
def run(call, tmp_path, monkeypatch):
    """Runs the command line with a config file; what it registers is forgotten after the test."""
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS))
    monkeypatch.setattr(distillation.registration, "BASELINES", dict(distillation.BASELINES))
    source = runs.write_arrays(tmp_path / "tiny.npz")

    def run_file(text: str, *flags: str, train: bool = True):
        file = tmp_path / "my_config.py"
        file.write_text(text)
        # A file registers once in a process.
        for name in set(METHODS) & {"logit_penalty", "logit_distance"}:
            del METHODS._entries[name]
        sized = (f"--config.data.source={source}", "--config.networks=('tiny',)")
        short = ("--config.epochs=1", "--config.batch_size=48", f"--workdir={tmp_path / 'run'}")
        return call(f"--config={file}", *((*sized, *short) if train else ()), *flags)

    return run_file


def test_the_regularizer_of_the_readme(run):
    status, output, errors = run(REGULARIZER, "--config.logit_penalty.weight=0.01")
    assert (status, errors) == (0, [])
    assert "epoch 1/1  step 2" in output and "network_0  top-1" in output
    status, _, errors = run(REGULARIZER, "--config.logit_penalty.weight=-1.0")
    assert status == 2
    assert errors == ["error: config.logit_penalty.weight=-1.0: must be at least 0"]


def test_a_loss_between_a_student_and_its_teacher(run, tmp_path):
    status, output, errors = run(TEACHER_LOSS)
    assert (status, errors) == (0, [])
    assert output.count("epoch 1/1  step 2") == 2  # the teacher, then the student
    assert (tmp_path / "run" / "teacher" / "checkpoints").is_dir()
    assert METHODS["logit_distance"].context == (
        "axis_name",
        "clock",
        "train_labels",
        "learning_rate",
        "teacher",
    )


def test_methods_of_a_file_are_listed(run):
    status, output, _ = run(TEACHER_LOSS, "--job=methods", train=False)
    assert status == 0
    assert "| `logit_distance` | `configs/distill.py` | a teacher | logits |" in output
