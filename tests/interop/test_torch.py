"""State dicts in and out, and what is said of those that do not fit."""

from __future__ import annotations

import json
import struct

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save

from kdjax import models
from kdjax.errors import UserError
from kdjax.interop import mapping
from kdjax.interop import torch as interop
from tests.models.helpers import random_variables, tiny


def variables_of(module) -> dict:
    return random_variables(module, np.zeros((1, 16, 16, 3), np.float32))


@pytest.fixture(scope="module")
def network():
    return tiny(num_classes=7)


@pytest.fixture(scope="module")
def variables(network):
    return variables_of(network)


@pytest.fixture
def state(network, variables):
    return interop.export_state_dict(network, variables)


def assert_same(actual, expected) -> None:
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def refused(network, state, *parts: str) -> None:
    with pytest.raises(UserError) as error:
        interop.import_state_dict(network, state)
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_layouts_and_names(network, variables, state):
    kernel = variables["params"]["stage2_block0"]["conv1"]["kernel"]
    assert state["layer2.0.conv1.weight"].shape == (8, 4, 3, 3)
    np.testing.assert_array_equal(state["layer2.0.conv1.weight"][5, 3], kernel[:, :, 3, 5])
    np.testing.assert_array_equal(state["fc.weight"], variables["params"]["classifier"]["kernel"].T)
    assert state["bn1.num_batches_tracked"].dtype == np.int64


def test_round_trip_through_safetensors(network, variables, state, tmp_path):
    interop.write(tmp_path / "network.safetensors", state)
    read = interop.read(tmp_path / "network.safetensors")
    imported, report = interop.import_state_dict(network, read)
    assert_same(imported, variables)
    assert report.dialect == "HSAKD"
    # In the order of the file, without the batch counters.
    assert [row[0] for row in report.rows] == [n for n in read if not n.endswith("tracked")]
    assert ("fc.bias", (7,), "params/classifier/bias") in report.rows
    assert "fc.bias" in str(report) and "7x8  params/classifier/kernel" in str(report)


@pytest.mark.slow
@pytest.mark.parametrize("name", models.names())
def test_round_trip_of_every_network(name):
    module, random = models.create(name, num_classes=10), np.random.default_rng(0)
    shapes = mapping.shapes(module, (32, 32, 3))
    variables = jax.tree.map(lambda x: random.standard_normal(x.shape, np.float32), shapes)
    state = interop.export_state_dict(module, variables)
    assert sum(v.size for n, v in state.items() if not n.endswith("tracked")) == sum(
        leaf.size for leaf in jax.tree.leaves(shapes)
    )
    assert_same(interop.import_state_dict(module, state)[0], variables)


def test_counters_are_kept_where_they_are_asked_for(network, state):
    state = {n: v + 5 if n.endswith("tracked") else v for n, v in state.items()}
    variables, report = interop.import_state_dict(network, state)
    again = interop.export_state_dict(network, variables, counters=report.counters)
    assert_same(again, state)
    without = {n: v for n, v in state.items() if not n.endswith("tracked")}
    assert_same(interop.import_state_dict(network, without)[0], variables)


def test_hidden_layers_of_large_vggs_are_named(network, state):
    for name in ("classifier.6.weight", "pre_logits.fc1.weight"):
        wide = {**state, name: np.zeros((10, 4096), np.float32)}
        refused(network, wide, "hidden layers before its classifier", "it has vgg11, vgg13, ")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module."])
def test_prefixes_are_taken_off(network, variables, state, prefix):
    state = {prefix + name: value for name, value in state.items()}
    assert_same(interop.import_state_dict(network, state)[0], variables)


def test_prefixes_of_wrappers_are_reported(network, variables, state):
    lightning = {f"model.{name}": value for name, value in state.items()}
    averaged = {f"module.{name}": value for name, value in state.items()}
    averaged["n_averaged"] = np.int64(5)
    for wrapped, prefix in ((lightning, "model."), (averaged, "module.")):
        imported, report = interop.import_state_dict(network, wrapped)
        assert_same(imported, variables)
        assert report.prefix == prefix
        assert f"named as by HSAKD after '{prefix}'" in str(report)
        assert interop.count_classes(network, wrapped) == 7


def test_a_part_that_fits_is_named(network, state):
    wrapped = {f"student.{name}": value for name, value in state.items()}
    wrapped["criterion.weight"] = np.ones(7)
    refused(network, wrapped, "may be its part 'student' (--torch_part=student)")
    with pytest.raises(UserError, match="part 'student'"):
        interop.count_classes(network, wrapped)


@pytest.mark.parametrize("shape", [(), (0,), (7, 1)])
def test_a_bias_of_another_shape_counts_no_classes(network, state, shape):
    state["fc.bias"] = np.zeros(shape, np.float32)
    with pytest.raises(UserError, match=r"fc\.bias, the classifier's bias, has the shape"):
        interop.count_classes(network, state)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((7,), 1j), "fc.bias is of complex128"),
        (np.array(["x"] * 7), "fc.bias is of <U1"),
        (np.full((7,), np.nan), "fc.bias has numbers that are not finite"),
        (np.full((7,), 1e300), "fc.bias has numbers that are not finite in float32"),
    ],
)
def test_arrays_that_are_no_weights(network, state, array, message):
    refused(network, state | {"fc.bias": array}, message)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("BF16", ml_dtypes.bfloat16),
        ("F8_E4M3", ml_dtypes.float8_e4m3fn),
        ("F8_E5M2", ml_dtypes.float8_e5m2),
    ],
)
def test_narrow_floats_of_safetensors(name, dtype, tmp_path):
    values = np.array([[1.5, -0.25, 0], [2, 3, -4]]).astype(dtype)
    write_safetensors(tmp_path / "x.safetensors", {"a": (name, values)})
    read = interop.read(tmp_path / "x.safetensors")["a"]
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, [[1.5, -0.25, 0], [2, 3, -4]])


def test_types_of_safetensors_that_are_not_read(tmp_path):
    write_safetensors(tmp_path / "x.safetensors", {"a": ("C64", np.ones(2, np.complex64))})
    with pytest.raises(UserError, match=r"x\.safetensors.*C64"):
        interop.read(tmp_path / "x.safetensors")


def write_safetensors(file, arrays: dict) -> None:
    """As the format's description has it; its own writer does not know all types."""
    header, content = {}, b""
    for name, (dtype, array) in arrays.items():
        offsets = [len(content), len(content) + array.nbytes]
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": offsets}
        content += array.tobytes()
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + content)


def test_safetensors_of_noise(network, state, tmp_path):
    """A few hundred damaged files: an error in one line, or arrays."""
    good, file = save(state), tmp_path / "x.safetensors"
    random = np.random.default_rng(0)
    for number in range(300):
        damaged = np.frombuffer(good, np.uint8).copy()
        # Most of the damage goes to the header, which is what is parsed.
        places = random.integers(0, random.choice([16, 2000, len(good)]), random.integers(1, 9))
        damaged[places] = random.integers(0, 256, len(places))
        file.write_bytes(
            damaged[: random.integers(1, len(good)) if random.random() < 0.2 else None]
        )
        try:
            read = interop.read(file)
            if number % 10 == 0:  # it takes a while
                interop.import_state_dict(network, read)
        except UserError as error:
            assert "\n" not in str(error)


def test_the_network_inside_one_with_auxiliary_classifiers():
    network = tiny(num_classes=7)
    whole = models.hsakd_branches(network)
    variables = variables_of(whole)
    state = interop.export_state_dict(whole, variables)
    refused(network, state, "left over: backbone.", "is its part 'backbone'")
    with pytest.raises(UserError, match="is its part 'backbone'"):
        interop.count_classes(network, state)
    imported, _ = interop.import_state_dict(network, interop.select(state, "backbone"))
    assert_same(imported, {name: tree["backbone"] for name, tree in variables.items()})
    with pytest.raises(UserError, match=r"no array is named teacher\.\.\."):
        interop.select(state, "teacher")


@pytest.mark.parametrize("make", [lambda x: x, models.hsakd_branches, models.stage_branches])
def test_classes_are_counted(make):
    state = interop.export_state_dict(
        make(tiny(num_classes=7)), variables_of(make(tiny(num_classes=7)))
    )
    assert interop.count_classes(make(tiny(num_classes=1)), state) == 7


def test_every_other_array_is_listed(network, state):
    extra = state | {"ema.weight": np.zeros(3, np.float32)}
    refused(network, extra, "left over: ema.weight")
    missing = {name: value for name, value in state.items() if name != "layer1.0.bn2.running_var"}
    refused(network, missing, "missing: layer1.0.bn2.running_var")
    wrong = state | {"fc.weight": state["fc.weight"].T, "bn1.bias": np.zeros((), np.float32)}
    refused(network, wrong, "fc.weight 8x7 not 7x8", "bn1.bias scalar not 4")


def test_another_architecture(network):
    state = interop.export_state_dict(tiny("wrn"), variables_of(tiny("wrn")))
    refused(network, state, "missing: ", "left over: ", "more")


def test_networks_without_a_counterpart():
    class Own(models.CifarResNet):
        pass

    with pytest.raises(UserError, match="Own has no counterpart"):
        mapping.namings(Own(num_classes=3))


def test_dialects(network, variables):
    assert "classifier.bias" in interop.export_state_dict(network, variables, dialect="MCL")
    with pytest.raises(UserError, match=r"unknown dialect 'CIRKD'.*HSAKD"):
        interop.export_state_dict(network, variables, dialect="CIRKD")


def test_peers_of_two_architectures():
    cohort = models.Cohort((tiny(), tiny("wrn")))
    variables = variables_of(cohort)
    state = interop.export_state_dict(cohort, variables)
    assert {"module_list.0.layer1.0.conv1.weight", "module_list.1.bn1.weight"} <= set(state)
    assert_same(interop.import_state_dict(cohort, state)[0], variables)


@pytest.mark.parametrize("name", ["file.safetensors", "directory"])
def test_files_that_cannot_be_read(name, state, tmp_path):
    (tmp_path / "directory").mkdir()
    with pytest.raises(UserError, match="does not exist"):
        interop.read(tmp_path / name)


@pytest.mark.parametrize("keep", [4, 100, -7])
def test_truncated_safetensors(state, tmp_path, keep):
    file = tmp_path / "network.safetensors"
    interop.write(file, state)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match="is damaged or no safetensors file") as error:
        interop.read(file)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_written(state, tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        interop.write(tmp_path / "missing" / "network.safetensors", state)
