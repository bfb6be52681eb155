"""What users do beside training: settings explained, configs fed back, JSON, predictions."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

import kdjax
from kdjax.cli import command_line
from kdjax.cli.main import main
from kdjax.errors import UserError
from kdjax.runs import metrics
from tests import tiny_runs as runs
from tests.tiny_runs import networks  # noqa: F401 (registers 'tiny')

DIGITS = f"--config={runs.ROOT}/configs/mcl.py:digits"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The workdir of a run of two networks and two epochs, and its source."""
    directory = tmp_path_factory.mktemp("runs")
    source = runs.write_arrays(directory / "tiny.npz")
    flags = runs.settings(source, networks="tiny,tiny")
    assert main(["kdjax", *flags, f"--workdir={directory / 'run'}"]) == 0
    return directory / "run", source


def test_version(call):
    assert call("--version") == (0, f"kdjax {kdjax.__version__}\n", [])


def test_help_of_a_config_has_its_settings(call):
    status, output, _ = call("--help", DIGITS, "--config.epochs=7")
    assert status == 0
    assert "  --config.epochs=7: of the whole run (at least 1; default: 200)\n" in output
    assert (
        "  --config.networks=resnet8,resnet8: registered networks (default: resnet32)\n" in output
    )
    assert "  --config.mcl.alpha=0.1: weight of the vanilla contrastive loss" in output
    assert "--config.dml." not in output  # another method's


def test_names_separated_by_commas():
    arguments = ["kdjax", DIGITS, "--workdir=w", "--config.networks=resnet8, resnet14"]
    config = command_line.parse([*arguments, "--config.optimizer.milestones=3,4"]).config
    assert config.networks == ("resnet8", "resnet14")
    assert config.optimizer.milestones == (3, 4)


def test_the_config_of_a_run_is_fed_back(trained, call, tmp_path):
    workdir, source = trained
    flags = (f"--config={workdir}/config.json", f"--workdir={workdir}")
    status, output, errors = call(*flags)
    assert (status, errors) == (0, []) and "already trained for 2 epochs" in output
    values = command_line.parse(["kdjax", flags[0], "--workdir=w", "--config.networks=tiny"])
    assert values.config.networks == ("tiny",) and values.config.data.source == source
    (tmp_path / "config.json").write_text("[]")
    _, _, errors = call(f"--config={tmp_path}/config.json", "--workdir=w")
    assert "config.json is damaged" in errors[0]


def test_fewer_epochs_do_not_rewrite_what_a_run_was(trained, call):
    workdir, _ = trained
    kept = [(workdir / name).read_text() for name in ("config.json", "metrics.jsonl")]
    flags = (f"--config={workdir}/config.json", f"--workdir={workdir}")
    status, _, errors = call(*flags, "--config.epochs=1")
    assert status == 2 and "config.epochs=1: the run in " in errors[0]
    assert "has been trained for 2 already" in errors[0]
    assert [(workdir / name).read_text() for name in ("config.json", "metrics.jsonl")] == kept


def test_a_run_that_was_to_be_longer_stays_so_where_nothing_is_left(trained, call, tmp_path):
    workdir, _ = trained
    config = json.loads((workdir / "config.json").read_text()) | {"epochs": 9}
    longer = (json.dumps(config, indent=2) + "\n").encode()
    before = (workdir / "config.json").read_bytes()
    try:
        (workdir / "config.json").write_bytes(longer)
        status, output, _ = call(
            f"--config={workdir}/config.json", "--config.epochs=2", f"--workdir={workdir}"
        )
        assert status == 0 and "already trained for 2 epochs" in output
        assert (workdir / "config.json").read_bytes() == longer
    finally:
        (workdir / "config.json").write_bytes(before)


def test_evaluation_as_json(trained, call):
    workdir, source = trained
    status, output, _ = call(
        "--job=evaluate", f"--workdir={workdir}", "--checkpoint=latest", "--format=json"
    )
    found = json.loads(output)
    row = metrics.read(workdir / "metrics.jsonl")[-1]
    assert status == 0 and found["source"] == source and found["split"] == "test"
    for name in ("network_0/top1", "ensemble/cross_entropy", "step"):
        assert found[name] == pytest.approx(row[name], rel=1e-5)


def test_predictions_of_arrays_are_those_of_the_ensemble(trained, call, tmp_path):
    workdir, source = trained
    arrays = np.load(source.removeprefix("arrays:"))
    np.savez(tmp_path / "own.npz", images=arrays["test_images"])
    flags = ("--job=predict", f"--workdir={workdir}", f"--images={tmp_path}/own.npz")
    status, output, _ = call(*flags, "--format=json", f"--output={tmp_path}")
    assert status == 0 and output.startswith("network_0 + network_1: 30 images: ")
    found = json.loads((tmp_path / "predictions.json").read_text())
    classes = [int(each["class"]) for each in found["predictions"]]
    expected = kdjax.load_run(workdir).evaluate()["ensemble/top1"]
    assert np.mean(classes == arrays["test_labels"]) == pytest.approx(expected)
    assert sum(found["predictions"][0]["probabilities"]) == pytest.approx(1)


def test_predictions_of_a_folder_of_images(trained, call, tmp_path):
    workdir, source = trained
    pixels = np.load(source.removeprefix("arrays:"))["test_images"][0]
    (tmp_path / "images" / "more").mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    Image.fromarray(pixels.repeat(2, 0).repeat(2, 1)).save(tmp_path / "images" / "more" / "b.png")
    flags = ("--job=predict", f"--workdir={workdir}", f"--output={tmp_path}", "--members=1")
    assert call(*flags, f"--images={tmp_path}/images")[0] == 0
    with open(tmp_path / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["a.png", "more/b.png"]
    expected = kdjax.load_run(workdir).networks[1].predict(pixels[None])[0]
    found = [float(rows[0][str(label)]) for label in range(runs.CLASSES)]
    assert found == pytest.approx(list(expected), rel=1e-4)
    assert float(rows[0]["probability"]) == pytest.approx(expected.max(), rel=1e-4)


def test_predictions_need_no_data_of_training(call, tmp_path):
    source = runs.write_arrays(tmp_path / "tiny.npz")
    names = "ant,bee,cat,dog"
    flags = runs.settings(source, epochs=1, data__class_names=names)
    assert call(*flags, f"--workdir={tmp_path / 'run'}")[0] == 0
    (tmp_path / "tiny.npz").unlink()
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    flags = ("--job=predict", f"--workdir={tmp_path / 'run'}", f"--images={tmp_path}/a.png")
    assert call(*flags)[0] == 0
    head = (tmp_path / "run" / "predictions.csv").read_text().splitlines()[0]
    assert head == f"image,class,probability,{names}"


@pytest.mark.parametrize(
    ("pattern", "arguments"),
    [
        ("--images is missing|needs --images", []),
        ("no such folder or file", ["--images=/none"]),
        ("there is no network_2; there are network_0, network_1", ["--members=2", "--images=/"]),
        ("--job=predict writes csv or json", ["--format=text", "--images=/"]),
    ],
)
def test_predictions_that_cannot_be_made(trained, call, pattern, arguments):
    status, _, errors = call("--job=predict", f"--workdir={trained[0]}", *arguments)
    assert status == 2 and len(errors) == 1
    with pytest.raises(UserError, match=pattern):
        raise UserError(errors[0])
