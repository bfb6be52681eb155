"""Early stopping: where a run ends, and that it stays so."""

from __future__ import annotations

import pytest

from kdjax import config as configs
from kdjax.errors import UserError
from kdjax.runs import metrics
from kdjax.runs.checkpoints import Checkpoints
from kdjax.training import checks, stages
from kdjax.training.early_stopping import early_stopping
from tests import tiny_runs as runs
from tests.tiny_runs import networks  # noqa: F401


def rows(*values):
    """Rows of epochs 1, 2, ...; None where an epoch was not evaluated."""
    return [
        {"epoch": epoch} | ({} if value is None else {"mean/top1": value})
        for epoch, value in enumerate(values, 1)
    ]


@pytest.mark.parametrize(
    ("values", "epoch"),
    [
        ((), None),
        ((None, None), None),
        ((0.5, 0.4), None),
        ((0.5, 0.4, 0.4), 3),
        ((0.5, 0.5, 0.5), 3),  # equal is no better
        ((0.5, 0.4, 0.6), None),
        ((0.5, None, 0.4, None), None),
        ((0.2, 0.5, 0.3, None, 0.4), 5),
    ],
)
def test_ends_after_evaluations_without_a_better_one(values, epoch):
    config = configs.base()
    config.evaluation.patience = 2
    line = early_stopping(config).ends(rows(*values))
    assert (line is not None) == (epoch is not None)
    if line:
        assert line.startswith(f"ended after epoch {epoch}: mean/top1 has not risen above 0.5")


def test_refused_with_pruning():
    config = configs.base()
    config.evaluation.patience, config.pruning.method = 3, "sfp"
    with pytest.raises(UserError, match=r"config.evaluation.patience=3: pruning"):
        checks.check(config)


@pytest.mark.slow
def test_a_run_ends_is_saved_and_goes_on_only_with_more_patience(tmp_path, capsys):
    config = configs.cifar_run("cross_entropy", "digits,tiny", count=1)
    config.batch_size, config.epochs = 16, 9
    config.data.source = runs.write_arrays(tmp_path / "tiny.npz")
    config.evaluation.batch_size, config.evaluation.patience = 16, 2
    config.checkpoint.every_epochs = 9
    config.optimizer.learning_rate, config.optimizer.warm_up_epochs = 1e-12, 0
    config.sync_batch_norm = False
    workdir = tmp_path / "run"

    def trained() -> list[int]:
        stages.train(config, workdir)
        checkpoints = Checkpoints(workdir / "checkpoints", "", read_only=True)
        step = checkpoints.latest_step()
        checkpoints.close()
        epochs = [int(row["epoch"]) for row in metrics.read(workdir / "metrics.jsonl")]
        assert step == 6 * epochs[-1]
        return epochs

    first = trained()
    assert 3 <= first[-1] < 9 and f"ended after epoch {first[-1]}" in capsys.readouterr().out
    assert trained() == first and "ended after epoch" in capsys.readouterr().out
    config.evaluation.patience = 0
    assert trained() == list(range(1, 10))
