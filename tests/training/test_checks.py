"""Configs that make no run: refused before data is read and anything is built."""

from __future__ import annotations

import time

import pytest

from kdjax import config as configs
from kdjax.errors import UserError
from kdjax.training import checks
from tests.tiny_runs import (
    networks,  # noqa: F401 (registers 'tiny')
    pruning,
)


def settings(**changes):
    """A run of the tiny network on data that is not there. `a__b=1` is `a.b`."""
    config = configs.cifar_run("cross_entropy", "digits,tiny", count=1)
    config.data.source = "arrays:/none.npz"
    flat = {name.replace("__", "."): value for name, value in changes.items()}
    config.update_from_flattened_dict(flat)
    return config


def test_a_check_reads_nothing_and_is_fast():
    checks.check(settings())  # what is imported late is there now
    begin = time.process_time()
    checks.check(settings())
    assert time.process_time() - begin < 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "config.epochs=0"),
        ({"steps_per_dispatch": -1}, "config.steps_per_dispatch=-1"),
        ({"evaluation__every_epochs": 0}, "config.evaluation.every_epochs=0"),
        ({"checkpoint__every_epochs": 0}, "config.checkpoint.every_epochs=0"),
        ({"parallel": "pmpa"}, "config.parallel='pmpa' is unknown"),
        ({"batch_size": 0}, "config.batch_size=0"),
        ({"seed": -1}, "config.seed=-1"),
        ({"dtype": "float8"}, "config.dtype='float8' is unknown"),
        ({"method": "mlc"}, "config.method='mlc' is unknown; did you mean 'mcl'"),
        ({"networks": ("tini",)}, "unknown network 'tini'"),
        ({"networks": ()}, "config.networks"),
        ({"data__augmentation": "flop"}, "config.data.augmentation='flop' is unknown"),
        ({"data__views": 0}, "config.data.views=0"),
        ({"optimizer__name": "adamv"}, "config.optimizer.name='adamv' is unknown"),
        ({"optimizer__schedule": "sine"}, "config.optimizer.schedule='sine' is unknown"),
        ({"optimizer__schedule": "sgdr"}, "config.optimizer.period must be positive"),
        ({"optimizer__clip_norm": -1.0}, "config.optimizer.clip_norm=-1.0"),
        ({"optimizer__momentum": 1.0}, "config.optimizer.momentum=1.0"),
        (
            {"method": "kd", "teacher__network": "tiny", "teacher__method": "kd"},
            r"config\.teacher\.method='kd' needs a teacher itself",
        ),
        (
            {"method": "kd", "teacher__network": "tinny"},
            "unknown network 'tinny'",
        ),
    ],
)
def test_settings_that_make_no_run(changes, message):
    with pytest.raises(UserError, match=message) as error:
        checks.check(settings(**changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({"method": name}, f"filters of method '{name}' return") for name in ("sfp", "asrfp")),
        ({"pruning__filters": "conv"}, "filters='conv_bn' or 'coupled', without patterns"),
        ({"pruning__patterns": ("**/conv*/kernel",)}, "without patterns"),
        (
            {"pruning__unit": "weights", "pruning__filters": "conv"},
            "single weights cannot be taken out",
        ),
        ({"networks": ("tiny", "tiny"), "shared_stages": 1}, "set config.shared_stages to 0"),
        (
            {"pruning__shrink_epochs": (2, 4)},
            r"\(2, 4\): training goes on after epochs 1 \.\.\. 3",
        ),
        ({"pruning__shrink_epochs": (0,)}, "must be at least 1"),
    ],
)
def test_settings_that_cannot_shrink(changes, message):
    changes = {
        "method": "hfp",
        "pruning__filters": "conv_bn",
        "pruning__shrink_epochs": (2,),
    } | changes
    with pytest.raises(UserError, match=message) as error:
        checks.check(pruning.config("arrays:/none.npz", **changes))
    assert "\n" not in str(error.value) and "config.pruning.shrink_epochs" in str(error.value)


def test_a_batch_that_devices_cannot_share():
    checks.check_batch(16, 4)
    with pytest.raises(UserError) as error:
        checks.check_batch(16, 3)
    assert str(error.value) == (
        "config.batch_size=16 is not divisible by the 3 devices of 1 process(es); "
        "use a multiple of 3"
    )
