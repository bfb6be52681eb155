"""What was trained, read again: `kdjax.load_run` and `kdjax.evaluate`."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

import kdjax
from kdjax import config as configs
from kdjax.data import augment
from kdjax.errors import UserError
from kdjax.training import stages
from tests import tiny_runs as runs
from tests.tiny_runs import networks  # noqa: F401 (registers 'tiny')


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two epochs: its workdir, and what training returned."""
    directory = tmp_path_factory.mktemp("runs")
    config = configs.cifar_run("cross_entropy", "digits,tiny", count=1)
    config.batch_size, config.epochs, config.evaluation.batch_size = 16, 2, 16
    config.data.source = runs.write_arrays(directory / "tiny.npz")
    return directory / "run", stages.train(config, directory / "run")


def test_a_run_is_read_again(trained):
    workdir, metrics = trained
    run = kdjax.load_run(workdir)
    assert [row["epoch"] for row in run.rows] == [1, 2]
    assert run.config.epochs == 2
    found = kdjax.evaluate(run, checkpoint="latest")
    assert (found.pop("step"), found.pop("epoch")) == (12, 2)
    assert found.keys() == metrics.keys()
    for name, value in metrics.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("split", ["train", "test"])
def test_accuracies_are_of_the_whole_split_without_augmentation(trained, split):
    run = kdjax.load_run(trained[0])
    found = kdjax.evaluate(run, split=split, checkpoint="latest")
    dataset = run.restore("latest").program.feed.dataset
    stored = getattr(dataset, split)
    network = run.load_networks("latest")["network_0"]
    images = augment.normalize(stored.images, dataset.mean, dataset.std)
    logits = network.module().apply(network.variables, images).logits
    assert found["network_0/top1"] == pytest.approx(np.mean(logits.argmax(-1) == stored.labels))
    picked = np.asarray(jax.nn.log_softmax(logits))[np.arange(len(stored.labels)), stored.labels]
    assert found["network_0/cross_entropy"] == pytest.approx(-picked.mean(), rel=1e-4)


def test_what_cannot_be_evaluated(trained, tmp_path):
    run = kdjax.load_run(trained[0])
    with pytest.raises(UserError, match="split='val' is unknown; use 'train' or 'test'"):
        kdjax.evaluate(run, split="val")
    with pytest.raises(UserError, match="checkpoint='last' is unknown"):
        kdjax.evaluate(run, checkpoint="last")
    with pytest.raises(UserError, match="checkpoint"):
        kdjax.evaluate(dataclasses.replace(run, workdir=tmp_path))
    with pytest.raises(UserError, match="holds no run"):
        kdjax.load_run(tmp_path)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        kdjax.trian  # noqa: B018
