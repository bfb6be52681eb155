"""What a run writes where it is asked to: a trace of some steps, and rows to wandb."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import types

import pytest

from kdjax import config as configs
from kdjax.errors import UserError
from kdjax.runs import metrics
from kdjax.training import checks
from tests import tiny_runs as runs
from tests.tiny_runs import networks  # noqa: F401


@pytest.fixture
def stub(monkeypatch):
    """A module in the place of wandb that remembers what it was called with."""
    module = types.ModuleType("wandb")
    module.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    module.begun, module.rows, module.finished = [], [], []

    def init(**options):
        module.begun.append(options)
        return types.SimpleNamespace(
            log=lambda row, step: module.rows.append((step, row)),
            finish=lambda: module.finished.append(options["id"]),
        )

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_wandb_is_asked_for_and_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = configs.base()
    config.wandb.project = "shapes"
    with pytest.raises(UserError, match=r"needs the package wandb: pip install 'kdjax\[wandb\]'"):
        checks.check(config)


def test_wandb_that_refuses_is_one_line(monkeypatch, stub, tmp_path):
    from kdjax.runs.wandb import Wandb, WandbWriter

    def init(**options):
        raise RuntimeError("api_key not configured\n(no-tty)")

    stub.init = init
    with pytest.raises(
        UserError, match=r"project='shapes': RuntimeError: api_key not configured \("
    ):
        WandbWriter(tmp_path, Wandb("shapes"), {})


@pytest.mark.slow
def test_a_run_is_traced_and_its_rows_are_sent(tmp_path, call, stub):
    source, workdir = runs.write_arrays(tmp_path / "tiny.npz"), tmp_path / "run"
    flags = runs.settings(source, wandb__project="shapes", wandb__mode="offline")
    status, output, errors = call(*flags, f"--workdir={workdir}", "--profile", "--profile_steps=2")
    assert status == 0, errors
    assert f"trace of 2 step(s): {workdir / 'profile'}" in output
    (trace,) = (workdir / "profile").rglob("*.xplane.pb")
    assert trace.stat().st_size > 1000
    rows = metrics.read(workdir / "metrics.jsonl")
    assert stub.rows == [(row["step"], row) for row in rows] and len(rows) == 2
    (begun,) = stub.begun
    assert (begun["project"], begun["name"], begun["mode"]) == ("shapes", "run", "offline")
    assert begun["config"]["networks"] == ["tiny"] and begun["config"]["epochs"] == 2
    assert stub.finished == [begun["id"]] and begun["resume"] == "allow"
    status, _, errors = call(*flags, f"--workdir={workdir}", "--config.epochs=3")
    assert status == 0, errors
    assert stub.begun[1]["id"] == begun["id"] and len(stub.rows) == 3


WRITE = """
import sys
from pathlib import Path
from kdjax.runs.wandb import Wandb, WandbWriter
for step in (1, 2):
    writer = WandbWriter(Path(sys.argv[1]), Wandb("shapes", mode="offline"), {"epochs": 2})
    writer.write({"step": step, "network_0/top1": 0.25})
    writer.close()
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_wandb_itself_keeps_the_rows_of_a_resumed_run_under_one_name(tmp_path):
    environment = os.environ | {"HOME": str(tmp_path / "home"), "WANDB_SILENT": "true"}
    command = [sys.executable, "-c", WRITE, str(tmp_path)]
    subprocess.run(command, env=environment, check=True, timeout=120)
    name = (tmp_path / "wandb_id.txt").read_text()
    files = list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert [file.stem for file in files] == [f"run-{name}"] * 2
    assert all(b"network_0/top1" in file.read_bytes() for file in files)


def test_steps_of_no_trace_are_refused(tmp_path, call):
    flags = runs.settings("digits")
    status, _, errors = call(*flags, f"--workdir={tmp_path / 'run'}", "--profile_steps=2")
    assert status == 2
    assert errors == ["error: --profile_steps has no effect without --profile; add it"]
