"""JSON files with random damages: they are read, or refused in one line."""

import json
import random

import pytest

from kdjax import config as configs
from kdjax.errors import UserError
from kdjax.runs import contents, metrics
from kdjax.runs import workdir as workdirs
from kdjax.runs.metrics import MetricsWriter

_VALUES = (None, True, -1, 2**70, 1e308, "", "x", [], {}, [[]], {"a": None}, "\ud800")


def damaged(content: bytes, draw: random.Random) -> bytes:
    """`content` with a flipped bit, a cut, an insertion, or another value in it."""
    kind = draw.randrange(4)
    at = draw.randrange(len(content))
    if kind == 0:
        return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]
    if kind == 1:
        return content[:at]
    if kind == 2:
        return content[:at] + draw.randbytes(draw.randrange(1, 8)) + content[at:]
    lines = content.splitlines()
    number = draw.randrange(len(lines))
    try:
        value = json.loads(lines[number])
        value[draw.choice(list(value))] = draw.choice(_VALUES)
        lines[number] = json.dumps(value).encode()
    except (ValueError, TypeError):  # a line of a file of several lines
        lines[number] = json.dumps(draw.choice(_VALUES)).encode()
    return b"\n".join(lines) + b"\n"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    workdirs.claim(directory, configs.base())
    writer = MetricsWriter(directory, 0)
    for step in range(3):
        writer.write({"step": step, "epoch": step, "train/loss": 0.5, "mean/top1": 0.25})
    writer.close()
    return directory


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("kdjax.json", contents.kind_of),
        ("config.json", workdirs.read_config),
        ("metrics.jsonl", lambda directory: metrics.read(directory / "metrics.jsonl")),
        ("metrics.jsonl", lambda directory: MetricsWriter(directory, 1).close()),
    ],
)
def test_damaged_file_is_read_or_refused(workdir, name, read):
    path, draw, refused = workdir / name, random.Random(0), 0
    content = path.read_bytes()
    try:
        for _ in range(100):
            path.write_bytes(damaged(content, draw))
            try:
                read(workdir)
            except UserError as error:
                refused += 1
                assert "\n" not in str(error)
    finally:
        path.write_bytes(content)
    assert refused > 10
