"""The page about runs: what it says, and that a browser shows it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from kdjax import config as configs
from kdjax.cli.main import main
from kdjax.errors import UserError
from kdjax.report import contents, curves, page
from kdjax.runs.history import History
from tests import tiny_runs as runs
from tests.tiny_runs import networks  # noqa: F401 (registers 'tiny')

VERSIONS = {"kdjax": "0.1.0", "device": "cpu", "devices": 1}


def write_run(workdir, *, seed=0, rate=0.1, epochs=3):
    """Writes the files of a run that a report reads."""
    workdir.mkdir(parents=True)
    config = configs.base()
    config.update(seed=seed, epochs=epochs, networks=("tiny", "tiny"))
    config.optimizer.learning_rate = rate
    (workdir / "config.json").write_text(json.dumps(configs.plain(config)))
    (workdir / "versions.json").write_text(json.dumps(VERSIONS))
    rows = []
    for epoch in range(1, epochs + 1):
        accuracy = 0.5 + 0.1 * seed + (0.2 if epoch == 2 else 0.0)
        rows.append(
            {"step": epoch * 10, "epoch": epoch, "learning_rate": rate / epoch}
            | {"images_per_second": 100.0, "train/loss": 1.0 / epoch, "train/kl": 0.1}
            | {"network_0/top1": accuracy, "mean/top1": accuracy, "network_0/cross_entropy": 0.7}
            | {"pruning/rate": 0.1 * epoch}
        )
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return workdir


def test_a_page_of_a_run(tmp_path):
    workdir = write_run(tmp_path / "<run>")
    counts = {"matrix": [[8, 2], [0, 9]], "class_names": ["cat", "d&g"]}
    (workdir / "confusion.json").write_text(json.dumps(counts))
    Image.new("RGB", (4, 4)).save(workdir / "batch.png")
    text = page.write([workdir], workdir).read_text()
    assert text.startswith("<!DOCTYPE html>") and "<title>&lt;run&gt;: kdjax</title>" in text
    assert "<b>70.00 %</b><span>mean/top1, best, epoch 2</span>" in text
    assert "<b>50.00 %</b><span>mean/top1, last</span>" in text
    for title in ("accuracy on the test", "terms of the", "learning rate", "images per second"):
        assert title in text
    assert ">pruning<" in text and "data:image/png;base64," in text
    assert '<td class="">cat</td><td class="">d&amp;g</td><td class="number">2</td>' in text
    assert not re.search(r'(src|href)="(?!data:|#)', text)  # no other file
    assert text == page.write([workdir], workdir).read_text()


def test_a_page_of_several_runs(tmp_path):
    workdirs = [write_run(tmp_path / f"s{seed}" / "run", seed=seed) for seed in range(3)]
    workdirs.append(write_run(tmp_path / "other" / "run", rate=0.2, epochs=2))
    text = page.write(workdirs, tmp_path).read_text()
    assert "s0/run" in text and "other/run" in text
    assert "80.00 ± 10.00" in text and "60.00 ± 10.00" in text  # best, last, over three seeds
    assert '<td class="">optimizer.learning_rate</td><td class="number">0.1</td>' in text
    sweep = contents.workdirs_of(tmp_path / "s0")
    assert sweep == [workdirs[0]] and contents.workdirs_of(workdirs[0]) == [workdirs[0]]
    (first, second) = contents.groups(contents.read(workdirs), "mean/top1")
    np.testing.assert_allclose(first.best, [0.7, 0.8, 0.9])
    assert second.names == ("other/run",) and second.last[0] == pytest.approx(0.7)


def test_panels_have_what_a_history_has():
    history = History([{"step": 1, "epoch": 1, "learning_rate": 0.1, "images_per_second": 1.0}])
    titles = [panel.title for panel in curves.panels(history)]
    assert titles == ["learning rate", "images per second"]
    names = ("train/loss", "train/cross_entropy", "train/network_0/accuracy", "ensemble/top1")
    history = History([{"step": 1, "epoch": 1} | dict.fromkeys(names, 0.5)])
    found = {panel.title: list(panel.curves.values()) for panel in curves.panels(history)}
    assert found == {
        "accuracy on the test images, %": ["ensemble"],
        "terms of the training loss": ["loss", "cross_entropy"],
        "accuracy on the training images, %": ["network_0"],
    }


def test_runs_that_cannot_be_reported(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="holds no run"):
        page.write([tmp_path], tmp_path)
    workdir = write_run(tmp_path / "run", epochs=1)
    (workdir / "confusion.json").write_text('{"matrix": [[1.5]], "class_names": ["a"]}')
    with pytest.raises(UserError, match=r"confusion\.json is damaged: 'matrix'.*; remove it"):
        page.write([workdir], workdir)
    (workdir / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="has no epoch to report yet"):
        page.write([workdir], workdir)
    monkeypatch.setattr(page, "available", lambda: False)
    with pytest.raises(UserError, match=r"pip install 'kdjax\[plots\]'"):
        page.write([workdir], workdir)
    assert page.after_training(workdir).startswith("no report was written: pip install")


def browser():
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next(filter(None, map(shutil.which, names)), None)


@pytest.mark.slow
def test_the_report_of_a_trained_run_in_a_browser(call, tmp_path):
    source, workdir = runs.write_arrays(tmp_path / "tiny.npz"), tmp_path / "run"
    flags = [*runs.settings(source, networks="tiny,tiny"), f"--workdir={workdir}", "--report"]
    assert main(["kdjax", *flags]) == 0
    assert "Confusion" not in (workdir / "report.html").read_text()  # cheap at the end of a run
    status, output, _ = call("--job=report", f"--workdir={workdir}")
    assert status == 0 and output.splitlines()[-1] == str(workdir / "report.html")
    matrix = np.array(json.loads((workdir / "confusion.json").read_text())["matrix"])
    assert matrix.sum() == 30  # the test images
    best = json.loads(call("--job=evaluate", f"--workdir={workdir}", "--format=json")[1])
    assert np.trace(matrix) / 30 == pytest.approx(best["ensemble/top1"])
    if browser() is None:
        pytest.skip("no Chromium: apt-get install chromium")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,2400"]
    picture = tmp_path / "page.png"
    address = f"file://{workdir}/report.html"
    subprocess.run(
        [browser(), *options, f"--screenshot={picture}", address], check=True, timeout=120
    )
    pixels = np.asarray(Image.open(picture).convert("L"))
    assert pixels.shape == (2400, 1200)
    assert (pixels[:1200] < 128).mean() > 0.002  # text and curves, not an empty page
