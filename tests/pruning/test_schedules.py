"""Schedules against the papers' and the logs' numbers."""

import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.pruning import schedules


def digits(value: str) -> int:
    """How many digits of a number are significant."""
    return len(value.split("e")[0].replace(".", "").lstrip("0"))


@pytest.mark.parametrize(
    ("epochs", "sigma", "values"),
    [
        (200, 1e-5, {1: ".944", 5: ".750", 10: ".562", 20: ".316", 40: ".100", 100: ".00316"}),
        (100, 1e-7, {1: ".851", 5: ".447", 10: ".200", 20: ".0398", 60: "6.3e-5", 80: "2.5e-6"}),
        (100, 1e-9, {1: ".813", 5: ".355", 10: ".126", 20: ".0158", 40: "2.5e-4", 60: "4e-6"}),
        (100, 1e-5, {1: ".8913", 2: ".7943", 3: ".7079", 5: ".562", 40: ".0100", 80: "1e-4"}),
    ],
)
def test_exponential_decay(epochs, sigma, values):
    decay = schedules.exponential_decay(epochs, end=sigma)
    for epoch, value in values.items():
        assert float(f"{decay(epoch):.{digits(value)}g}") == float(value)
    assert decay(0) == 1
    last = round(0.9 * epochs)
    assert decay(last - 1) > 0
    assert decay(last) == decay(epochs - 1) == 0


def test_exponential_decay_ends_at_sigma():
    slope = -np.log(schedules.exponential_decay(200)(100)) / 100
    assert slope == pytest.approx(0.05756, abs=5e-6)
    assert np.exp(-slope * 200) == pytest.approx(1e-5, rel=1e-6)
    assert schedules.exponential_decay(200, start=0)(50) == 0


def test_asymptotic_rate():
    rate = schedules.asymptotic(0.4, 200)
    parts = {0: 0, 1: 0.054, 5: 0.242, 10: 0.426, 25: 0.75, 50: 0.9375, 100: 0.996}
    for epoch, part in parts.items():
        assert rate(epoch) / 0.4 == pytest.approx(part, abs=5e-4)
    assert [rate(epoch) < 0.4 for epoch in (189, 190, 199)] == [True, False, False]
    assert rate(190) == rate(199) == 0.4


@pytest.mark.parametrize("knee", [0.125, 0.25, 0.6])
@pytest.mark.parametrize("epochs", [7, 200])
def test_asymptotic_rate_passes_through_its_three_points(knee, epochs):
    rate = schedules.asymptotic(0.3, epochs, knee=knee, exact_from=1)
    assert rate(0) == 0
    assert rate(knee * epochs) == pytest.approx(0.75 * 0.3, rel=1e-12)
    # Just before the end: from there on it is constant.
    assert rate(epochs * (1 - 1e-12)) == pytest.approx(0.3, rel=1e-10)


def test_the_two_forms_of_the_asymptotic_rate():
    exact = schedules.asymptotic(1.0, 200, exact_from=1)
    closed = schedules.asymptotic(1.0, 200, exact_from=1, form="closed")
    exponent = -200 * np.log(1 - closed(1))
    assert exponent == pytest.approx(11.09035, abs=1e-5)
    assert exponent / 200 == pytest.approx(0.055452, abs=1e-6)
    ratio = (1 - exact(50) * (1 - np.exp(-11.08999))) ** (1 / 50)
    assert -200 * np.log(ratio) == pytest.approx(11.08999, abs=1e-5)
    epochs = np.arange(200)
    assert 0 < np.abs(exact(epochs) - closed(epochs)).max() < 3e-5


@pytest.mark.parametrize(
    ("epochs", "values"),
    [
        (
            200,
            {0: 0.015, 1: 0.03, 10: 0.156, 25: 0.342, 50: 0.587, 100: 0.879, 150: 0.985},
        ),
        (100, {0: 0.0297, 1: 0.0588, 2: 0.0873, 10: 0.295, 25: 0.595, 50: 0.882, 99: 1}),
    ],
)
def test_cubic(epochs, values):
    fraction = schedules.cubic(1.0, epochs)
    for epoch, value in values.items():
        assert fraction(epoch) == pytest.approx(value, abs=5.1e-4)
    assert schedules.cubic(1.0, 100, exact_from=0.8)(79) < schedules.cubic(1.0, 100)(80) < 1
    assert schedules.cubic(0.5, 100, exact_from=0.8)(80) == 0.5


def test_linear_and_cosine():
    linear = schedules.linear_decay(101, zero_from=1)
    assert [linear(0), linear(50), linear(100)] == [1, 0.5, 0]
    assert schedules.linear_decay(101)(91) == 0 < schedules.linear_decay(101)(90)
    cosine = schedules.cosine_decay(100)
    np.testing.assert_allclose([cosine(0), cosine(45), cosine(90), cosine(99)], [1, 0.5, 0, 0])
    rise = schedules.cosine(0.8, 100)
    np.testing.assert_allclose([rise(0), rise(45), rise(90), rise(99)], [0, 0.4, 0.8, 0.8])
    assert schedules.constant(0.3)(17) == 0.3


ALL = {
    "constant": schedules.constant(0.3),
    "asymptotic": schedules.asymptotic(0.4, 30),
    "closed": schedules.asymptotic(0.4, 30, form="closed"),
    "cubic": schedules.cubic(0.4, 30),
    "cosine": schedules.cosine(0.4, 30),
    "exponential_decay": schedules.exponential_decay(30),
    "linear_decay": schedules.linear_decay(30),
    "cosine_decay": schedules.cosine_decay(30),
}


@pytest.mark.parametrize("name", ALL)
def test_numbers_arrays_and_jax_arrays(name):
    schedule, epochs = ALL[name], np.arange(30)
    values = np.array([schedule(epoch) for epoch in range(30)])
    assert values.dtype == np.float64 and values.shape == (30,)
    assert ((values >= 0) & (values <= 1)).all()
    np.testing.assert_allclose(schedule(epochs), values, rtol=1e-15)
    traced = schedule(jnp.asarray(epochs))
    assert traced.shape == (30,)
    np.testing.assert_allclose(traced, values, rtol=1e-4, atol=1e-6)
    if name != "constant":
        step = np.diff(values)
        assert (step <= 0).all() if name.endswith("decay") else (step >= 0).all()


@pytest.mark.parametrize("epochs", range(2, 12))
def test_short_trainings_end_pruned(epochs):
    assert schedules.asymptotic(0.4, epochs)(epochs - 1) == 0.4
    assert schedules.exponential_decay(epochs)(epochs - 1) == 0
    assert schedules.linear_decay(epochs)(epochs - 1) == 0
    assert schedules.cosine_decay(epochs)(epochs - 1) == 0
    assert schedules.cubic(1.0, epochs)(epochs - 1) == 1


def test_errors():
    with pytest.raises(ValueError, match=r"knee=0.8 is not in \(0, 3/4\)"):
        schedules.asymptotic(0.4, 10, knee=0.8)
    with pytest.raises(ValueError, match="form='open' is unknown; use one of three_points, closed"):
        schedules.asymptotic(0.4, 10, form="open")
    with pytest.raises(ValueError, match=r"exact_from=2 is not in \[0, 1\]"):
        schedules.cubic(0.4, 10, exact_from=2)
    with pytest.raises(ValueError, match=r"end=0 is not in \(0, 1\]"):
        schedules.exponential_decay(10, end=0)
    with pytest.raises(ValueError, match=r"start=-1 is not in \[0, 1\]"):
        schedules.exponential_decay(10, start=-1)
