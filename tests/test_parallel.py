"""One device, several, and several processes compute the same; and what `Parallel` promises."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import parallel
from kdjax.errors import UserError
from kdjax.parallel import AXIS, Parallel, fetch
from tests import tiny_runs as runs

# Sums over a batch are made in another order, which changes the last bits of float32 gradients
# (1e-7 of the largest terms, of which a gradient is a small difference); measured: 2e-5. Three
# steps of 0.01 keep it at that. The update itself, not the parameter, is the scale: parameters
# hardly change in three steps.
TOLERANCE = 2e-4


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """A function from DEVICES/KIND to the arrays before and after three steps, run when asked."""
    path = tmp_path_factory.mktemp("devices")
    source = runs.write_arrays(path / "tiny.npz", train=48)
    options = {"module": "tests.tiny_runs.three_steps"}

    @functools.cache
    def three_steps(name: str) -> dict:
        devices, kind = name.split("/")
        out = path / devices
        out.mkdir(exist_ok=True)
        if devices == "two":
            runs.finish(*runs.start_two(source, out, kind, devices=2, **options))
        else:
            count = {"one": 1, "eight": 8}[devices]
            runs.finish(runs.start(source, out, kind, devices=count, **options))
        return dict(np.load(out / f"{kind}.npz"))

    return three_steps


def difference(one: dict, other: dict) -> float:
    """The largest difference of updates, as a part of the largest update of the same array."""
    worst = 0.0
    for name, after in one.items():
        if name.startswith("after"):
            before = one["before" + name.removeprefix("after")]
            size = np.abs(after - before).max()
            assert size > 0, f"{name} was not trained"
            worst = max(worst, np.abs(after - other[name]).max() / size)
    return worst


@pytest.mark.parametrize(
    "kind",
    [
        "eight/pmap",
        pytest.param("two/shard_map", marks=pytest.mark.slow),
        pytest.param("eight/shard_map", marks=pytest.mark.slow),
        pytest.param("two/pmap", marks=pytest.mark.slow),
    ],
)
def test_devices_and_processes_train_as_one_device_does(states, kind):
    assert difference(states("one/pmap"), states(kind)) < TOLERANCE


@pytest.mark.slow
def test_statistics_of_each_device_train_otherwise(states):
    assert difference(states("one/pmap"), states("eight/pmap+local")) > 0.1


def add(replicated, constants, per_device):
    return jax.tree.map(lambda x: x + constants * jax.lax.pmean(per_device, AXIS), replicated)


@pytest.mark.parametrize("backend", parallel.BACKENDS)
def test_backends_compute_the_same(backend):
    devices = Parallel(backend)
    rows = devices.shard(np.full((devices.local_device_count, 3), 2.0, np.float32))
    result = devices.map(add)({"x": np.ones(3, np.float32)}, np.float32(10), rows)
    np.testing.assert_array_equal(fetch(result)["x"], [21, 21, 21])


@pytest.mark.parametrize("backend", parallel.BACKENDS)
@pytest.mark.parametrize("donate", [True, False])
def test_donation(backend, donate):
    devices = Parallel(backend)
    state = devices.replicate(np.ones(3, np.float32))
    copy = fetch(state)
    rows = devices.shard(np.zeros((devices.local_device_count, 3), np.float32))
    devices.map(add, donate=donate)(state, np.float32(1), rows)
    assert state.is_deleted() == donate
    np.testing.assert_array_equal(copy, [1, 1, 1])


def test_unknown_backend():
    with pytest.raises(UserError, match=r"config.parallel='pmpa'"):
        Parallel("pmpa")


def test_split_and_columns_cut_the_global_batch_into_contiguous_slices():
    devices = Parallel()
    devices.device_count = devices.local_device_count = 4
    batch = np.arange(2 * 8 * 3).reshape(2, 8, 3)
    split = devices.split(batch)
    assert split.shape == (4, 2, 2, 3)
    for device in range(4):
        np.testing.assert_array_equal(split[device], batch[:, 2 * device : 2 * device + 2])
    assert devices.columns(8) == slice(0, 8)


def test_process_reads_its_own_part(monkeypatch):
    devices = Parallel()
    devices.device_count, devices.local_device_count = 4, 2
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    batch = np.arange(8)[None]
    np.testing.assert_array_equal(devices.split(batch), [[[4, 5]], [[6, 7]]])
    np.testing.assert_array_equal(batch[:, devices.columns(8)], [[4, 5, 6, 7]])


def test_unknown_compiler_option_is_left_out(monkeypatch):
    monkeypatch.setattr(parallel, "_CPU_OPTIONS", {"xla_no_such_option": "1"})
    parallel._has_library.cache_clear()
    try:
        assert parallel.compiler_options() == {}
    finally:
        parallel._has_library.cache_clear()


def test_compiler_options_other_than_unknown_ones_fail(monkeypatch):
    monkeypatch.setattr(
        parallel, "_CPU_OPTIONS", {"xla_cpu_experimental_ynn_fusion_type": "NO_SUCH_VALUE"}
    )
    parallel._has_library.cache_clear()
    try:
        with pytest.raises(jax.errors.JaxRuntimeError):
            parallel.compiler_options()
    finally:
        parallel._has_library.cache_clear()


def test_scan_is_that_of_jax():
    def turn(carry, x):
        return carry * 2 + x["a"], {"carry": carry, "sum": carry + x["b"].sum()}

    xs = {"a": jnp.arange(4.0), "b": jnp.ones((4, 2))}
    jax.tree.map(
        np.testing.assert_array_equal,
        parallel.scan(turn, jnp.float32(1), xs),
        jax.lax.scan(turn, jnp.float32(1), xs),
    )


def test_fetched_arrays_are_copies():
    source = jnp.ones(3)
    copy = fetch(source)
    copy[0] = 5
    assert source[0] == 1
