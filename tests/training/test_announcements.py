"""What a run says of itself: opening and closing lines, the log, the bar, the speed."""

from __future__ import annotations

import re
import time

import jax
import pytest

from kdjax.runs import console
from kdjax.training import announcements, compile_time
from tests import tiny_runs as runs
from tests.tiny_runs import networks  # noqa: F401 (registers 'tiny')


@pytest.mark.slow
def test_opening_and_closing_lines_and_the_log(call, tmp_path):
    source, workdir = runs.write_arrays(tmp_path / "tiny.npz"), tmp_path / "run"
    flags = (*runs.settings(source, epochs=1), f"--workdir={workdir}")
    status, output, _ = call(*flags)
    lines = output.splitlines()
    assert status == 0 and re.fullmatch(r"kdjax \S+, jax \S+, \d+ x cpu, float32", lines[0])
    assert lines[1] == f"{source}: 96 training and 30 test images of 8x8x3, 4 classes"
    pattern = r"cross_entropy: tiny with ([\d,]+) parameters; ([\d,]+) are trained"
    counts = re.fullmatch(pattern, lines[2])
    assert counts[1] == counts[2] != "0"
    assert lines[3] == "1 epoch of 6 steps of 16 images: 6 steps"
    assert lines[4].startswith("compiling")
    assert re.fullmatch(r"trained epoch 1 in [\d.]+ s, [\d.]+ s of it compiling", lines[6])
    assert re.fullmatch(r"best checkpoint: step 6, mean/top1 [\d.]+ %", lines[7])
    assert lines[8].startswith(f"{workdir}: checkpoints/, config.json, kdjax.json, log.txt, ")
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  "
    logged = (workdir / "log.txt").read_text().splitlines()
    assert [re.sub(stamp, "", line) for line in logged] == lines[:9]

    _, output, _ = call(*flags)  # nothing is left to do
    assert "already trained for 1 epoch" in output and "trained epoch" not in output
    assert "compiling" not in output
    assert len((workdir / "log.txt").read_text().splitlines()) > 9  # the log goes on


def test_periods_inside_of_others_count_once():
    periods = compile_time.Periods()
    periods.add(2.0, 1.0)  # 1..2
    periods.add(4.0, 1.0)  # 3..4
    periods.add(4.5, 2.0)  # 2.5..4.5, around the one before
    assert periods.total == pytest.approx(3.0)
    periods.add(5.0, 1.0)  # half of it is known
    assert periods.total == pytest.approx(3.5)


def test_compiling_is_measured():
    before, begin = compile_time.seconds(), time.monotonic()
    jax.jit(lambda x: x * 3 - 1).lower(1.0).compile()
    assert 0 < compile_time.seconds() - before <= time.monotonic() - begin


def test_durations():
    texts = {7.21: "7.2 s", 63.4: "1 min 3 s", 3599.9: "1 h 0 min", 7384.0: "2 h 3 min"}
    assert {seconds: announcements.duration(seconds) for seconds in texts} == texts


def test_the_bar_shows_the_loss_and_when_the_run_ends(monkeypatch, capsys):
    monkeypatch.setattr(console, "_shows_bars", lambda stream: True)
    progress = console.Progress(2, 3, 100, 0)
    time.sleep(0.11)  # tqdm draws ten times a second
    progress.advance(10)
    time.sleep(0.11)
    progress.advance(20, 0.5)
    progress.close()
    shown = capsys.readouterr().err
    assert "epoch 2/3" in shown and re.search(r"loss 0.5000, run ends in \d\d:\d\d", shown)
