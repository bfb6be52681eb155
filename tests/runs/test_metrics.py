"""The files of metrics: what a resumed run finds and what it leaves."""

import csv
import json

import pytest

from kdjax.errors import UserError
from kdjax.runs import metrics
from kdjax.runs.metrics import MetricsWriter


def write(workdir, rows, step=0):
    writer = MetricsWriter(workdir, step)
    for row in rows:
        writer.write(row)
    writer.close()


def test_rows_land_in_both_files(tmp_path):
    write(tmp_path, [{"step": 3, "loss": 0.5}, {"step": 6, "loss": 0.25}])
    assert metrics.read(tmp_path / "metrics.jsonl") == [
        {"step": 3, "loss": 0.5},
        {"step": 6, "loss": 0.25},
    ]
    assert (tmp_path / "metrics.csv").read_text() == "step,loss\n3,0.5\n6,0.25\n"


def test_columns_are_those_of_all_rows(tmp_path):
    write(tmp_path, [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5, "top1": 0.9}])
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"step": "1", "loss": "1.0", "top1": ""},
        {"step": "2", "loss": "0.5", "top1": "0.9"},
    ]


def test_resumed_run_drops_rows_after_its_step(tmp_path):
    write(tmp_path, [{"step": step, "loss": 1.0} for step in (2, 4, 6)])
    write(tmp_path, [{"step": 6, "loss": 0.5}], step=4)
    rows = metrics.read(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["loss"]) for row in rows] == [(2, 1.0), (4, 1.0), (6, 0.5)]


def test_last_line_cut_short_by_a_kill_is_dropped(tmp_path):
    write(tmp_path, [{"step": 2, "loss": 1.0}])
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')
    write(tmp_path, [{"step": 4, "loss": 0.5}], step=2)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4]


def test_rows_are_there_before_the_writer_is_closed(tmp_path):
    MetricsWriter(tmp_path, 0).write({"step": 1})
    assert metrics.read(tmp_path / "metrics.jsonl") == [{"step": 1}]


def test_damaged_file_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b"\x00\xff\x00\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged"):
        MetricsWriter(tmp_path, 0)


def test_no_metrics_yet(tmp_path):
    assert metrics.read(tmp_path / "metrics.jsonl") == []


def test_atomic_write_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    metrics.write_atomically(path, "old")

    def fail(number):
        raise OSError

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError):
        metrics.write_atomically(path, "new")
    assert path.read_text() == "old"
