"""`configs/distill.py`, and whole runs of it."""

from __future__ import annotations

import importlib.util

import pytest

from kdjax import config as configs
from kdjax import methods
from kdjax.errors import UserError
from kdjax.methods.baselines.distillation import BASELINES
from kdjax.runs import metrics
from tests import tiny_runs as runs
from tests.methods.distilled import PHASED
from tests.tiny_runs import networks  # noqa: F401 (registers 'tiny')


def config(argument: str):
    path = runs.ROOT / "configs" / "distill.py"
    spec = importlib.util.spec_from_file_location("config_distill_file", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument)


@pytest.mark.parametrize("name", BASELINES)
def test_configs_have_repdistillers_schedule(name):
    made = config(name)
    assert made.method == name and methods.needs_teacher(made)
    first = 30 if name in PHASED else 0
    assert made.epochs == 240 + first
    assert made.optimizer.milestones == (150 + first, 180 + first, 210 + first)
    assert not made.optimizer.nesterov
    usual = configs.distillation_run(name, "digits", ("resnet8",)).epochs
    assert config(f"{name},digits").epochs == usual + (2 if name in PHASED else 0)


def test_settings_that_depend_on_the_pair():
    assert config("dkd").dkd.beta == 6.0
    assert config("dkd,cifar100,resnet32x4,resnet8x4").dkd.beta == 8.0
    assert config("ft,cifar100,vgg13,vgg8").ft.init_learning_rate == 0.05
    low = config("ft,cifar100,wrn_40_2,shufflenetv1")
    assert low.ft.init_learning_rate == low.optimizer.learning_rate == 0.01


def test_unknown_methods_get_the_nearest_names():
    with pytest.raises(UserError, match="method='fitnets' is unknown; did you mean 'fitn"):
        config("fitnets,digits")


def flags(name: str, source: str, **changes) -> list[str]:
    """A short run of `configs/distill.py:NAME,digits` with tiny networks."""
    values = {
        "epochs": 2,
        "batch_size": 16,
        "evaluation.batch_size": 16,
        "data.source": source,
        "data.image_size": 0,
        "optimizer.learning_rate": 0.01,
        "teacher.epochs": 1,
    }
    given = [f"--config.{key}={value}" for key, value in (values | changes).items()]
    return [f"--config={runs.ROOT}/configs/distill.py:{name},digits,tiny,tiny", *given]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        pytest.param("crd", {}, id="crd", marks=pytest.mark.slow),
        pytest.param("ft", {"ft.init_epochs": 1}, id="ft", marks=pytest.mark.slow),
    ],
)
def test_train_resume_and_evaluate(name, changes, tmp_path, call):
    """Teacher, student and evaluation in one command each; memory and phases survive a restart."""
    source, workdir = runs.write_arrays(tmp_path / "tiny.npz"), tmp_path / "run"
    assert call(*flags(name, source, **changes), f"--workdir={workdir}")[0] == 0
    longer = flags(name, source, **changes | {"epochs": 3})
    status, output, _ = call(*longer, f"--workdir={workdir}")
    assert status == 0 and "resumed from step 12" in output
    rows = metrics.read(workdir / "metrics.jsonl")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[0]["train/distillation"] != rows[1]["train/distillation"]
    in_first = [row["train/loss"] == row.get("train/first_phase") for row in rows]
    assert in_first == [name == "ft", False, False]
    assert call("--job=evaluate", f"--workdir={workdir}")[0] == 0


@pytest.mark.slow
def test_crd_on_two_devices(tmp_path):
    source = runs.write_arrays(tmp_path / "tiny.npz")
    runs.finish(runs.start(*flags("crd", source), f"--workdir={tmp_path / 'run'}", devices=2))
    assert len(metrics.read(tmp_path / "run" / "metrics.jsonl")) == 2
