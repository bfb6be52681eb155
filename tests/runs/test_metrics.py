"""The files of metrics: what a resumed run finds and what it leaves."""

import json

import pytest

from kdjax.errors import UserError
from kdjax.runs import metrics
from kdjax.runs.metrics import MetricsWriter


def write(workdir, rows, step=0):
    writer = MetricsWriter(workdir, step)
    try:
        for row in rows:
            writer.write(row)
    finally:
        writer.close()


def test_rows_land_in_the_file(tmp_path):
    rows = [{"step": 3, "loss": 0.5}, {"step": 6, "loss": -2.5e-07, "net/top1": 1}]
    write(tmp_path, rows)
    assert metrics.read(tmp_path / "metrics.jsonl") == rows
    assert metrics.last(tmp_path / "metrics.jsonl") == rows[-1]


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
    writer = MetricsWriter(tmp_path, 0)
    writer.write({"step": 1})
    assert metrics.read(tmp_path / "metrics.jsonl") == [{"step": 1}]
    writer.close()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"\x00\xff\x00", "can't decode byte 0xff"),
        (b"", "it is empty"),
        (b"[1]", "the row is a list"),
        (b"3", "the row is a number"),
        (b'{"epoch": 1}', "the row has no 'step'"),
        (b'{"step": "x"}', "'step' is text"),
        (b'{"step": null}', "'step' is null"),
        (b'{"step": true}', "'step' is a truth value"),
        (b'{"step": -1}', r"'step' is -1, not in \[0"),
        (b'{"step": 1.5}', "'step' is a number"),
        (b'{"step": 2, "loss": NaN}', "NaN is no number"),
        (b'{"step": 2, "loss": 1e999}', "'loss' is not finite"),
        (b'{"step": 2, "loss": "low"}', "'loss' is text"),
        (b'{"step": 2, "loss": 1' + 400 * b"0" + b"}", "'loss' is not finite"),
        (b'{"step": 2, "loss": 1' + 5000 * b"0" + b"}", "integer string conversion"),
        (b'{"step": 9, "loss": 1.0}', "step 6 stands after step 9"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 2**20, "integer string conversion"),
    ],
)
def test_damaged_row_is_named(tmp_path, line, reason):
    write(tmp_path, [{"step": 6, "loss": 1.0}])
    path = tmp_path / "metrics.jsonl"
    content = line + b"\n" + path.read_bytes()
    path.write_bytes(content)
    for read in (metrics.read, metrics.last, lambda _: MetricsWriter(tmp_path, 6)):
        with pytest.raises(UserError, match=rf"metrics\.jsonl is damaged: line [12]: .*{reason}"):
            read(path)
    assert path.read_bytes() == content


def test_row_in_another_notation_is_read(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"loss":1.0,  "step":2}\n')
    write(tmp_path, [{"step": 4}], step=2)
    rows = metrics.read(tmp_path / "metrics.jsonl")
    assert rows == [{"loss": 1.0, "step": 2}, {"step": 4}]


def test_value_that_is_not_finite_is_not_written(tmp_path):
    with pytest.raises(UserError, match="not finite at step 3: loss"):
        write(tmp_path, [{"step": 3, "loss": float("nan")}])
    assert metrics.read(tmp_path / "metrics.jsonl") == []


def test_resumption_parses_and_writes_no_row(tmp_path, monkeypatch):
    write(tmp_path, [{"step": step, "loss": 1.0} for step in range(100)])
    before = (tmp_path / "metrics.jsonl").stat()
    monkeypatch.setattr(metrics.json, "loads", lambda text: pytest.fail("a row is parsed"))
    MetricsWriter(tmp_path, 99).close()
    after = (tmp_path / "metrics.jsonl").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)


def test_no_metrics_yet(tmp_path):
    assert metrics.read(tmp_path / "metrics.jsonl") == []
    assert metrics.last(tmp_path / "metrics.jsonl") is None
