"""kdjax from Python: train, read, apply; refusals are exceptions."""

from __future__ import annotations

import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

import kdjax
from kdjax import config as configs
from kdjax.errors import UserError
from kdjax.runs.history import History
from kdjax.training import api
from kdjax.training.preemption import Preempted
from tests import tiny_runs as runs
from tests.tiny_runs import networks  # noqa: F401 (registers 'tiny')


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two epochs and two networks, trained from Python."""
    directory = tmp_path_factory.mktemp("runs")
    config = kdjax.config.cifar_run("cross_entropy", "digits,tiny", count=2)
    config.batch_size, config.epochs, config.evaluation.batch_size = 16, 2, 16
    config.data.source = runs.write_arrays(directory / "tiny.npz")
    return kdjax.train(config, directory / "run")


def test_history_is_a_table(run):
    history = run.history()
    assert list(history["epoch"]) == [1, 2] and history[-1]["epoch"] == 2
    assert history["mean/top1"] == pytest.approx([row["mean/top1"] for row in run.rows])
    assert "<th>train/loss</th>" in history._repr_html_()
    with pytest.raises(UserError, match="there is no metric 'top1'; there are step, epoch"):
        history["top1"]


def test_columns_that_rows_lack_are_nan():
    history = History([{"step": 1}, {"step": 2, "mean/top1": 0.5}])
    assert history.columns == ("step", "mean/top1")
    np.testing.assert_equal(history["mean/top1"], [np.nan, 0.5])
    assert len(history[1:]) == 1


def test_networks_normalize_pixels_themselves(run):
    found = run.evaluate(split="test", checkpoint="best")
    dataset = run.restore().program.feed.dataset
    images, labels = dataset.test.images, dataset.test.labels
    for index, network in enumerate(run.networks):
        probabilities = network.predict(images, batch_size=16)  # the last batch is padded
        accuracy = np.mean(probabilities.argmax(-1) == labels)
        assert accuracy == pytest.approx(found[f"network_{index}/top1"])
        outputs = network.apply(images[:16])
        expected = jax.nn.softmax(outputs.logits)
        np.testing.assert_allclose(probabilities[:16], expected, rtol=1e-5)
    assert network.predict(images[:0]).shape == (0, runs.CLASSES)


def test_images_that_networks_cannot_be_shown(run):
    network, images = run.networks[0], np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(UserError, match="of type float32: give pixels as uint8"):
        network.apply(images.astype(np.float32))
    with pytest.raises(UserError, match=r"of shape \(2, 8, 8\): tiny takes \[B, 8, 8, 3\]"):
        network.predict(images[..., 0])
    spec = network.spec
    unknown = network._replace(spec=kdjax.networks.NetworkSpec(spec.name, spec.num_classes))
    with pytest.raises(UserError, match=r"\[B, 32, 32, 3\]"):
        unknown.predict(images)
    with pytest.raises(UserError, match="does not say by which mean and std"):
        unknown.predict(np.zeros((2, 32, 32, 3), np.uint8))


def test_configs_are_read_from_files(run, tmp_path):
    config = configs.read(f"{runs.ROOT}/configs/mcl.py:digits")
    assert configs.read("mcl:digits").to_dict() == config.to_dict()
    config.epochs = 2  # not locked
    assert config.method == "mcl"
    again = configs.read(str(run.workdir / "config.json"))
    assert again.to_dict() == run.config.to_dict() | again.to_dict()
    assert again.networks == ("tiny", "tiny") and configs.plain(again) == configs.plain(run.config)
    for text, message in (
        ("none.py", "no such file"),
        (f"{run.workdir}/config.json:digits", "not a Python file"),
        (f"{runs.ROOT}/kdjax/errors.py", "no function get_config"),
        (f"{runs.ROOT}/README.md", "not a Python file"),
        (str(run.workdir / "metrics.jsonl"), "not a Python file"),
    ):
        with pytest.raises(UserError, match=message):
            configs.read(text)
    (tmp_path / "config.json").write_text('{"epochs": "many"}')
    with pytest.raises(UserError, match=r"is damaged: config\.epochs='many'"):
        configs.read(str(tmp_path / "config.json"))


def test_an_interrupt_is_one(monkeypatch, tmp_path):
    def stopped(number):
        def train(config, workdir):
            raise Preempted(number)

        return train

    monkeypatch.setattr(api.stages, "train", stopped(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        kdjax.train(configs.base(), tmp_path)
    monkeypatch.setattr(api.stages, "train", stopped(signal.SIGTERM))
    with pytest.raises(Preempted):
        kdjax.train(configs.base(), tmp_path)
    with pytest.raises(UserError, match="config is of type dict"):
        kdjax.train({}, tmp_path)


def test_importing_kdjax_is_light():
    code = "import sys, kdjax; print('jax' in sys.modules, 'numpy' in sys.modules)"
    printed = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=runs.ROOT)
    assert printed.split() == ["False", "False"]
