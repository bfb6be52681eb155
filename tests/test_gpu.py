"""The GPU command: its parts without a GPU, and all of it in its tiny form."""

import json
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest

from experiments.gpu import __main__ as gpu
from experiments.gpu import (
    archives,
    benchmark,
    graphs,
    networks,
    numbers,
    pieces,
    programs,
    rounding,
    sweeping,
    tolerances,
    training,
    workers,
)
from kdjax.cli.command_line import parse
from tests import golden


def write_pair(folder, images_of_class=12):
    """A pair of random 8x8 images of ten classes; returns the file of the training images."""
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), images_of_class)
    for split in ("train", "test"):
        images = draw.integers(0, 256, (len(labels), 8, 8, 3), np.uint8)
        np.savez(folder / f"set_{split}.npz", image=images, label=draw.permutation(labels))
    return folder / "set_train.npz"


@pytest.mark.parametrize("shape", [(7, 5, 6, 3), (1, 1, 1, 3), (2, 1, 4, 3)])
def test_residuals_lose_nothing(shape):
    images = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    differences = pieces.residuals(images)
    np.testing.assert_array_equal(pieces.images_of(differences), images)
    gray = np.full(shape, 77, np.uint8)
    assert (
        np.count_nonzero(pieces.residuals(gray)) == shape[0]
    )  # the first pixel of the green plane


def test_pieces_join_to_the_pair(tmp_path):
    train = write_pair(tmp_path)
    assert pieces.main([str(train), "--output", str(tmp_path / "pieces"), "--train_pieces=3"]) == 0
    assert pieces.join(tmp_path / "pieces", tmp_path) == {"train": 120, "test": 120}
    for split in ("train", "test"):
        joined, given = (np.load(tmp_path / f"{name}_{split}.npz") for name in ("data", "set"))
        np.testing.assert_array_equal(joined["image"], given["image"])
        np.testing.assert_array_equal(joined["label"], given["label"])
    # Of those pieces only that have arrived.
    (tmp_path / "pieces/train_1.npz").unlink()
    assert pieces.join(tmp_path / "pieces", tmp_path)["train"] == 80
    (tmp_path / "pieces/test_0.npz").unlink()
    with pytest.raises(SystemExit, match="no test_"):
        pieces.join(tmp_path / "pieces", tmp_path)


def test_the_minutes_are_shared():
    ends = gpu.deadlines(["numbers", "training"], 100.0, 60.0)
    assert ends == pytest.approx({"numbers": 124.0, "training": 160.0})
    ends = gpu.deadlines(["training", "numbers", "benchmark"], 0.0, 1.0)
    assert list(ends) == ["numbers", "benchmark", "training"]
    assert ends["training"] == pytest.approx(1.0)


def test_archives_come_back_in_parts_and_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "PART_BYTES", 1000)
    scratch, output, other = (tmp_path / name for name in ("scratch", "output", "other"))
    for folder in (output, *(scratch / name for name in training.RUNS)):
        folder.mkdir(parents=True)
    values = np.random.default_rng(0).bytes(4500)
    for name in training.RUNS:
        (scratch / name / "state").write_bytes(values + name.encode())
    about = {"images": {"train": 8, "test": 4}, "dtype": "bfloat16", "epochs": 3}
    folders = [scratch / name for name in training.RUNS]
    files = [file.name for file in archives.pack(folders, output, "training", about, root=scratch)]
    assert "training.tar.gz.4" in files and files[-1] == "training.json"
    archives.unpack(output, "training", other, about)
    for name in training.RUNS:
        assert (other / name / "state").read_bytes() == values + name.encode()
    with pytest.raises(SystemExit, match="epochs was 3, is 4"):
        archives.unpack(output, "training", other, about | {"epochs": 4})


EXPERIMENT = """
TITLE = "A teacher and its student"
SEEDS = (0, 1)
ONCE = ("teacher",)
COMMON = (
    "--config.epochs=1", "--config.batch_size=32", "--config.data.image_size=8",
    "--config.networks=('resnet8',)", "--config.data.source=arrays:{data}/cifar100_train.npz",
)
_CONFIG = "--config=configs/cross_entropy.py:cifar100,resnet8"
RUNS = {
    "teacher": (_CONFIG,),
    "student": (
        _CONFIG, "--config.method=kd", "--config.teacher.checkpoint={runs}/teacher_seed0",
    ),
}
"""


@pytest.mark.slow
def test_a_sweep_of_several_processes(tmp_path, monkeypatch):
    """Students wait for the teacher that another process trains; rows and teacher come back."""
    (tmp_path / "two_runs.py").write_text(EXPERIMENT)
    (tmp_path / "again.py").write_text(f'{EXPERIMENT}\nSEEDS = (0,)\ndel RUNS["student"]\n')
    monkeypatch.setitem(sweeping.ENVIRONMENT, "PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    write_pair(tmp_path)
    pieces.main([str(tmp_path / "set_train.npz"), "--output", str(tmp_path / "pieces")])
    flags = ["--parts=sweep", "--experiment=two_runs:teacher,again,two_runs", "--jobs=2"]
    flags += ["--keep=again"]
    flags += [f"--data={tmp_path / 'pieces'}", f"--output={tmp_path}"]
    options = gpu.parse([*flags, f"--scratch={tmp_path / 'scratch'}"])
    found, lines = gpu.sweep_part(options, time.monotonic() + 600)
    names = ["student_seed0", "student_seed1", "teacher_seed0"]
    assert found["done"] == {"two_runs": names, "again": ["teacher_seed0"]}, lines
    assert found["statuses"] == [[0, 0, 0], [0, 0, 0]]
    with tarfile.open(tmp_path / "results.tar.gz") as archive:
        rows = archive.extractfile("results/two_runs/rows.csv").read()
    assert rows.count(b"\n") == 4
    archives.unpack(tmp_path, "sweep", tmp_path / "back", found["about"])
    kept = [str(path.relative_to(tmp_path / "back")) for path in (tmp_path / "back").glob("*/*")]
    assert sorted(kept) == ["again/teacher_seed0", "two_runs/teacher_seed0"]


def test_what_fails_under_a_flag_is_in_the_table():
    fine = graphs._result(
        0, 'a log\n{"median": 2, "least": 1, "ready": 3, "losses": [0.5, 0.25]}', ""
    )
    failed = graphs._result(1, "", "Traceback\nJaxRuntimeError: UNKNOWN: 5003\nin external/xla")
    lines = graphs.table({"default": {"compiled": fine, "loaded": failed}})
    assert lines[2] == "| default | compiled | 2.00 | 1.00 | 3.0 | 0.50000, 0.25000 |"
    assert lines[3] == "| default | loaded | failed: JaxRuntimeError: UNKNOWN: 5003 | | | |"


@pytest.mark.slow
def test_flags_of_graphs_in_their_tiny_form(monkeypatch):
    monkeypatch.setattr(graphs, "VARIANTS", {"default": ""})
    found = graphs.measure(time.monotonic() + 500, tiny=True)["default"]
    assert found["compiled"]["losses"] == found["loaded"]["losses"]


def test_labels_are_of_an_experiment():
    first, second = sweeping.parts_of("experiments.mcl_full:mcl+dml,experiments.few_shot")
    assert (first.name, first.labels) == ("mcl_full", ("mcl", "dml"))
    assert (second.module, second.labels) == ("experiments.few_shot", ())
    with pytest.raises(SystemExit, match=r"few_shot has no label \['dml'\]"):
        sweeping.parts_of("experiments.few_shot:dml")


def write_lines(file, lines):
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_numbers_over_their_tolerance_are_named(tmp_path):
    lines = [("kd", "kd_0", 1e-7), ("kd", "kd_1", 2e-5), ("sp", "sp_0", 1e-6), ("sp", "sp_0", 0)]
    lines = [{"family": f, "case": c, "error": e} for f, c, e in lines]
    write_lines(tmp_path / "losses-1.jsonl", [{"dtype": "float32"} | line for line in lines])
    done = [{"done": "kd_0 bfloat16"}]
    write_lines(
        tmp_path / "losses-2.jsonl", [{"dtype": "bfloat16"} | line for line in lines] + done
    )
    names = {"chosen": ["kd_0 bfloat16", "kd_1 bfloat16"], "left_out": ["sp_1 bfloat16"]}
    (tmp_path / "collected-1.json").write_text(json.dumps(names))
    network = {"network": "hsakd_vgg8_bn", "dtype": "float32", "mode": "eval", "error": np.nan}
    half = network | {"dtype": "bfloat16", "error": 0.01}
    write_lines(tmp_path / "networks-hsakd_vgg8_bn.jsonl", [network, half])
    unreached, left_out = numbers.cases_of(tmp_path)
    found = {
        "losses": numbers.losses_of(tmp_path),
        "networks": numbers.networks_of(tmp_path),
        "cut": unreached,
        "left_out": left_out,
        "failed": [],
    }
    assert found["losses"]["float32"]["kd"]["cases"] == 2
    assert found["losses"]["float32"]["sp"]["comparisons"] == 2
    assert numbers.outside(found) == ["kd float32", "hsakd_vgg8_bn float32 eval"]
    table = numbers.table(found)
    assert "| kd | 2 | 2.0e-05 (1e-05) | 2.0e-05 (0.05) |" in table
    assert "- not reached in time: kd_1 bfloat16" in table
    assert "- run by --cases all only: sp_1 bfloat16" in table


def test_what_the_time_cut_is_named_and_no_failure(tmp_path, monkeypatch):
    waiting = [sys.executable, "-c", "import time; time.sleep(600)"]
    failing = [sys.executable, "-c", "raise ValueError('broken')"]
    commands = {"losses": (waiting, {}), "hsakd_vgg8_bn": (waiting, {})}
    monkeypatch.setattr(numbers, "commands", lambda *_, **__: commands)
    arguments = {"tiny": True, "cases": "first"}
    found = numbers.measure(tmp_path, tmp_path, time.monotonic(), **arguments)
    cells = [f"{dtype} {mode}" for dtype in ("bfloat16", "float32") for mode in ("eval", "train")]
    assert found["cut"] == [*(f"hsakd_vgg8_bn {cell}" for cell in cells), "all losses"]
    assert found["failed"] == [] and not gpu.failed({"numbers": found})
    commands["losses"] = failing, {}
    found = numbers.measure(tmp_path, tmp_path, time.monotonic() + 1, **arguments)
    assert "status 1" in found["failed"][0] and "broken" in found["failed"][0]
    assert "all losses" not in found["cut"] and gpu.failed({"numbers": found})


def test_tolerances_in_bfloat16_are_of_the_format():
    """Which is large in train mode of depthwise networks only."""
    cells = [(name, mode) for name in tolerances.NETWORKS for mode in tolerances.MODES]
    large = [cell for cell in cells if tolerances.of_network(cell[0], "bfloat16", cell[1]) > 0.05]
    assert large == [("hsakd_ShuffleV2_05", "train"), ("hsakd_mobilenetV2", "train")]
    for name in tolerances.NETWORKS:
        for errors in tolerances.rounding_errors()[name].values():
            assert 0 < errors["nearest"] < errors["largest"] < 2.5 * errors["nearest"]
    card = json.loads((tolerances.ROUNDING.parent / "h100/numbers_benchmark.json").read_text())
    for row in card["numbers"]["networks"]:
        assert row["error"] <= tolerances.of_network(row["network"], row["dtype"], row["mode"])


@pytest.mark.slow
def test_errors_of_the_format():
    golden.require()
    name = "hsakd_vgg8_bn"
    found, written = rounding.measure(name, "train", 2), tolerances.rounding_errors()[name]["train"]
    assert found["nearest"] == pytest.approx(written["nearest"], rel=0.2)
    assert written["nearest"] < found["largest"] < 1.2 * written["largest"]


class FakeWorker:
    """Answers a round with the next of its messages."""

    def __init__(self, *messages):
        self.messages = list(messages)

    def round(self, deadline):
        return self.messages.pop(0)


def test_a_side_that_fails_costs_the_others_no_round():
    good, bad = (programs.Job("mcl", "float32", side) for side in ("kdjax", "torch"))
    sides = {bad: FakeWorker({"failed": "out of memory\n"}), good: FakeWorker((9, 1), (2, 5))}
    times, memory, lines = workers.alternate(sides, 1, 0.0)
    assert (times, memory) == ({bad: [], good: [2]}, {good: 5})
    assert lines == ["mcl float32 torch: out of memory"]


def test_table_of_the_benchmark():
    chosen = programs.settings(programs.Job("mcl", "float32", "kdjax"), True)
    rows = [
        benchmark.row(
            programs.Job("mcl", "float32", side),
            [2 * seconds, 2 * seconds, 9.0],
            {"built": 1.0, "first": 3.0 + 2 * seconds, "losses": [1.0, 2.0]},
            2**20,
            chosen,
            work=1e12,
            top=1e13,
        )
        for side, seconds in (("kdjax", 0.5), ("torch", 1.0))
    ]
    assert rows[1]["images_per_second"] == pytest.approx(8) and rows[1]["compile_s"] == 4
    found = {
        "device": "card",
        "ceilings": {"float32": 1e13},
        "rows": rows,
        "missing": [],
        "left_out": ["mcl torch.compile"],
        "failed": [],
    }
    assert benchmark.table(found)[-1].endswith("--sides): mcl torch.compile")
    line = "| mcl, batch 8 | float32 | torch | 1000.00 | 1000.00 | 8 | 4.0 | 1 "
    line += "| 1.000 | 10.0 % | 2.00 |"
    assert line in benchmark.table(found)


@pytest.mark.parametrize("family", programs.FAMILIES)
def test_the_programs_of_kdjax_can_be_built(family):
    """All but compiling and running: names that moved would show on a lent machine only."""
    assert callable(programs.program(programs.Job(family, "bfloat16", "kdjax"), True))


@pytest.mark.parametrize("tiny", [False, True])
@pytest.mark.parametrize("name", training.RUNS)
def test_the_command_lines_of_the_training(name, tiny, tmp_path):
    command = training.command(name, tmp_path, "bfloat16", 300, tiny=tiny)
    config = parse(["kdjax", *command[3:]]).config
    assert (config.method, config.dtype, config.epochs) == (name, "bfloat16", 300)
    assert len(config.networks) == (2 if name == "mcl" else 1)
    assert config.data.source == f"arrays:{tmp_path / 'data' / 'data_train.npz'}"


def test_the_networks_of_the_numbers_are_golden_cases():
    golden.require()
    assert [networks.case_of(name).name for name in tolerances.NETWORKS] == list(
        tolerances.NETWORKS
    )


def test_operations_of_a_step():
    # Two ResNet-8 of 8 images, three times the 12.5 million multiply-adds of a forward pass.
    found = programs.operations("mcl", True)
    assert found == pytest.approx(2 * 3 * 8 * 2 * 12.5e6, rel=0.03)
    assert 0 < programs.operations("hssakd", True) < programs.operations("hssakd", False)


@pytest.mark.slow
def test_the_command_in_its_tiny_form(tmp_path):
    write_pair(tmp_path)
    pieces.main([str(tmp_path / "set_train.npz"), "--output", str(tmp_path / "pieces")])
    command = [sys.executable, "-m", "experiments.gpu", "--tiny", f"--data={tmp_path / 'pieces'}"]
    command += [f"--golden={golden.require()}", f"--scratch={tmp_path / 'scratch'}"]
    command += ["--dtype=float32", "--rounds=2", "--sides=torch"]
    first = [*command, "--minutes=10", "--epochs=2", f"--output={tmp_path / 'first'}"]
    subprocess.run(first, check=True)
    found = json.loads((tmp_path / "first/gpu.json").read_text())
    assert found["numbers"]["losses"]["float32"]["kd_distillkl"]["cases"] == 3
    assert found["numbers"]["left_out"] == ["kd_distillkl_1 bfloat16", "kd_distillkl_2 bfloat16"]
    assert {row["family"] for row in found["benchmark"]["rows"]} == set(programs.FAMILIES)
    assert found["training"]["runs"]["mcl"]["rows"][-1]["epoch"] == 2
    again = [*command, "--minutes=2", "--parts=training", "--epochs=2"]
    again += [f"--resume={tmp_path / 'first'}", f"--output={tmp_path / 'second'}"]
    subprocess.run(again, check=True)
    assert (
        json.loads((tmp_path / "second/gpu.json").read_text())["training"]["runs"]["mcl"]["rows"]
        == found["training"]["runs"]["mcl"]["rows"]
    )
