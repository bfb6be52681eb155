"""Methods that mix images, from the command line and on two devices."""

from __future__ import annotations

import pytest

from kdjax.runs import metrics
from tests import tiny_runs as runs

SETTINGS = {
    "mixskd": ("mixskd.py:digits,tiny", {"cross_entropy", "mixed_cross_entropy", "discrimination"}),
    "mixup": ("self_distill.py:mixup,digits,tiny", {"cross_entropy"}),
    "cutmix": ("self_distill.py:cutmix,digits,tiny", {"cross_entropy"}),
    "manifold_mixup": ("self_distill.py:manifold_mixup,digits,tiny", {"cross_entropy"}),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return runs.write_arrays(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_learns(source, tmp_path, name):
    """`configs/FILE:digits` as it stands, but for its network, data and length."""
    file, terms = SETTINGS[name]
    changes = {"epochs": 3, "data__image_size": 0, "optimizer__learning_rate": 0.02}
    flags = [f"--config={runs.ROOT}/configs/{file}", *runs.settings(source, **changes)[1:]]
    workdir = tmp_path / "run"
    runs.finish(runs.start(*flags, f"--workdir={workdir}", devices=2))
    rows = metrics.read(workdir / "metrics.jsonl")
    assert terms <= {key.removeprefix("train/") for key in rows[-1]}
    assert rows[-1]["train/cross_entropy"] < rows[0]["train/cross_entropy"]
    assert rows[-1]["mean/top1"] == rows[-1]["network_0/top1"] > 1 / runs.CLASSES
    evaluated = {key.removesuffix("/top1") for key in rows[-1] if key.endswith("/top1")}
    heads = {"network_0/branch1", "network_0/self_teacher"} if name == "mixskd" else set()
    assert evaluated == {"mean", "network_0", *heads}
