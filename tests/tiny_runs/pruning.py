"""Runs of the tiny network with pruning."""

from ml_collections import ConfigDict

from kdjax import config as configs
from kdjax.data import order
from tests import tiny_runs as runs
from tests.tiny_runs import networks  # noqa: F401 (registers 'tiny')

PER_EPOCH = 6
METHODS = ("sfp", "asfp", "srfp", "asrfp", "hfp", "ghfp", "fpgm")


def config(source: str, method: str = "sfp", *, learner: str = "cross_entropy", **changes):
    """Half the filters are pruned, in 4 epochs of 6 steps. `a__b=1` is `a.b`."""
    count = 2 if learner in ("mcl", "hssakd_online") else 1
    made = configs.cifar_run(learner, "digits,tiny", count=count)
    made.epochs, made.batch_size, made.evaluation.batch_size = 4, 16, 15
    made.data.source, made.data.images_per_class = source, 4 if learner == "mcl" else 0
    # Few and small steps: more would amplify differences of rounding as chaos does.
    made.optimizer.learning_rate, made.optimizer.warm_up_epochs = 0.02, 0
    made.pruning.method, made.pruning.rate = method, 0.5
    flat = {name.replace("__", "."): value for name, value in changes.items()}
    made.update_from_flattened_dict(flat)
    assert order.steps_per_epoch(96, made.batch_size) == PER_EPOCH
    return ConfigDict(made)


def written(directory) -> str:
    """The `config.data.source` of images that are written into a directory."""
    return runs.write_arrays(directory / "tiny.npz")
