"""Learning-rate schedules against the papers' code."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from kdjax import config as configs
from kdjax.registry import Registry
from kdjax.training import learning_rate as schedules
from kdjax.training import optimizers
from tests import golden

STEPS_PER_EPOCH = 10  # as in the golden numbers that have a value per iteration


def settings(hyper: dict):
    """The config of a golden schedule."""
    config = configs.base()
    optimizer = config.optimizer
    optimizer.learning_rate = hyper.get("init_lr", hyper.get("learning_rate"))
    milestones = hyper.get("schedule", hyper.get("milestones"))
    optimizer.schedule = hyper.get("lr_type", "multistep").lower()
    if optimizer.schedule == "multistep":
        optimizer.milestones = tuple(milestones)
        optimizer.factors = tuple(hyper.get("gammas", (0.1,) * len(milestones)))
    if optimizer.schedule == "sgdr":
        optimizer.period = hyper["sgdr_t"]
    optimizer.warm_up_epochs = hyper.get("warmup_epoch", 0)
    config.epochs = hyper.get("epochs", 1)
    return config


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", golden.loss_names("lr_"))
def test_official_schedules(name, dtype):
    hyper, arrays = golden.loss(name)
    expected = arrays["out_lr"]
    first_steps = STEPS_PER_EPOCH * np.arange(len(expected))
    steps = first_steps if expected.ndim == 1 else first_steps[:, None] + [0, STEPS_PER_EPOCH - 1]
    with jax.enable_x64(dtype is np.float64):
        rate = optimizers.learning_rate(settings(hyper), STEPS_PER_EPOCH)
        actual = jax.jit(rate)(steps)
        assert actual.dtype == dtype
        golden.assert_close(actual, expected, 1e-9 if dtype is np.float64 else 1e-6)


def test_runs_of_self_distillation_have_the_official_rates():
    """Their schedule is main.py's, and on ImageNet the cosine of MixSKD's script."""
    for data, name in (("cifar100", "lr_selfkd_multistep"), ("imagenet", "lr_selfkd_cosine")):
        config = configs.self_distillation_run("dks", data)
        rate = optimizers.learning_rate(config, STEPS_PER_EPOCH)
        first = STEPS_PER_EPOCH * np.arange(config.epochs)
        actual = jax.jit(rate)(first[:, None] + [0, STEPS_PER_EPOCH - 1])
        expected = golden.loss(name).arrays["out_lr"][: config.epochs]
        golden.assert_close(actual, expected, 1e-6)
        warm = config.optimizer.warm_up_epochs
        golden.assert_close(actual[[warm - 1, warm], [1, 0]], np.full(2, 0.1), 1e-6)


def official_warm_up(step: int, base: float, warm_up: int, epochs: int) -> float:
    """Linear to `base`, then a cosine over `epochs` whose clock starts after the warm-up."""
    if step < warm_up * STEPS_PER_EPOCH:
        return base * (step + 1) / (warm_up * STEPS_PER_EPOCH)
    epoch = step // STEPS_PER_EPOCH - warm_up
    return base / 2 * (1 + np.cos(np.pi * epoch / epochs))


def test_warm_up_rises_at_every_step_and_the_schedule_follows_with_its_own_clock():
    clock = {"steps_per_epoch": STEPS_PER_EPOCH}
    rate = schedules.warm_up(schedules.cosine(0.2, epochs=8, **clock), 0.2, epochs=3, **clock)
    expected = [official_warm_up(step, 0.2, 3, 8) for step in range(110)]
    np.testing.assert_allclose(rate(np.arange(110)), expected, rtol=1e-6, atol=1e-7)


def test_sgdr_restarts_with_doubled_periods():
    rate = schedules.sgdr(0.1, period=3, steps_per_epoch=STEPS_PER_EPOCH)
    starts = STEPS_PER_EPOCH * np.array([0, 3, 9, 21, 45])
    np.testing.assert_allclose(rate(starts), 0.1, rtol=1e-6)
    assert (rate(starts[1:] - 1) < 0.03).all()


def test_the_rate_changes_between_epochs_only():
    for rate in (
        schedules.cosine(0.1, epochs=4, steps_per_epoch=STEPS_PER_EPOCH),
        schedules.sgdr(0.1, period=1, steps_per_epoch=STEPS_PER_EPOCH),
        schedules.multistep(0.1, milestones=[1], factors=[0.5], steps_per_epoch=STEPS_PER_EPOCH),
    ):
        values = np.array([rate(step) for step in range(40)]).reshape(4, STEPS_PER_EPOCH)
        np.testing.assert_array_equal(values, values[:, :1].repeat(STEPS_PER_EPOCH, 1))


def test_multistep_multiplies_by_each_factor():
    rate = schedules.multistep(1.0, milestones=[2, 3], factors=[0.5, 0.1], steps_per_epoch=1)
    np.testing.assert_allclose([rate(step) for step in range(5)], [1, 1, 0.5, 0.05, 0.05])


@pytest.mark.parametrize(
    ("milestones", "factors", "message"),
    [([1, 2], [0.1], "2 milestones but 1 factors"), ([2, 1], [0.1, 0.1], "must increase")],
)
def test_multistep_rejects(milestones, factors, message):
    with pytest.raises(ValueError, match=message):
        schedules.multistep(0.1, milestones=milestones, factors=factors, steps_per_epoch=1)


def test_a_schedule_from_outside(monkeypatch):
    monkeypatch.setattr(optimizers, "SCHEDULES", Registry("schedule", "config.optimizer.schedule"))

    @optimizers.register_schedule("halving")
    def halving(config, steps_per_epoch):
        return lambda step: config.optimizer.learning_rate / 2 ** (step // steps_per_epoch)

    config = configs.base()
    config.optimizer.update({"schedule": "halving", "learning_rate": 0.4})
    rate = optimizers.learning_rate(config, STEPS_PER_EPOCH)
    assert [rate(step) for step in (0, 9, 10, 25)] == [0.4, 0.4, 0.2, 0.1]


def test_poly_falls_at_every_step_to_zero():
    """CIRKD's: 0.02 (1 - step / steps)^0.9."""
    config = configs.base()
    config.optimizer.schedule, config.optimizer.learning_rate, config.epochs = "poly", 0.02, 4
    rate = optimizers.learning_rate(config, steps_per_epoch=10)
    found = np.array([rate(step) for step in range(41)])
    np.testing.assert_allclose(found, 0.02 * (1 - np.arange(41) / 40) ** 0.9, atol=1e-9, rtol=1e-5)
