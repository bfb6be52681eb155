"""Compact networks in directories, and what is refused."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from kdjax import models
from kdjax.compaction import filter_groups, remove_filters
from kdjax.errors import UserError
from kdjax.networks import Network, NetworkSpec, load, save
from tests.compaction.removed import assert_close, images, logits, pruned
from tests.models.families import FAMILIES, random_variables
from tests.networks.saved import change_metadata
from tests.tiny_runs import networks  # noqa: F401 (registers 'tiny')

NETWORK = FAMILIES["resnet, padding"]


@pytest.fixture(scope="module")
def masked():
    """Variables in float32 and masks."""
    variables = random_variables(NETWORK, dtype=np.float32)
    variables["params"], masks = pruned(variables["params"], filter_groups(NETWORK))
    return variables, masks


def test_saved_and_loaded_by_name(tmp_path):
    network = models.create("tiny", num_classes=3)
    variables = random_variables(network, dtype=np.float32)
    variables["params"], masks = pruned(variables["params"], filter_groups(network))
    result = remove_filters(network, variables, masks)
    spec = NetworkSpec("tiny", 3, compaction=result.network.compaction)
    save(tmp_path / "there", Network(spec, result.variables), {})
    loaded = load(tmp_path / "there")
    assert loaded.spec == spec
    assert loaded.module() == result.network
    x = images().astype(np.float32)
    found = logits(loaded.module(), loaded.variables, x)
    assert_close(found, logits(network, variables, x), 1e-5)

    def damaged(change, pattern):
        change_metadata(tmp_path / "there", lambda data: change(data["networks"][0]["spec"]))
        with pytest.raises(UserError, match=pattern):
            load(tmp_path / "there")

    damaged(lambda spec: spec["compaction"]["kept"].update(stem_conv="0110011"), "does not fit")
    damaged(lambda spec: spec["compaction"]["kept"].update(stem="01"), "tiny has no 'stem'")
    damaged(lambda spec: spec["compaction"].update(kept=[]), r"compaction\.kept=\[\] must be")
    damaged(lambda spec: spec.update(compaction=None), "does not fit its network tiny: ")


def test_dtype_of_a_compact_network(masked):
    result = remove_filters(NETWORK, *masked)
    network = result.network.clone(dtype=np.dtype("bfloat16"), axis_name="batch")
    outputs = jax.eval_shape(network.apply, result.variables, images().astype(np.float32))
    assert outputs.logits.dtype == np.float32
    assert {leaf.dtype for leaf in outputs.features.values()} == {np.dtype("bfloat16")}


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"conv_1": np.ones(8, bool)}, r"'conv_1' of shape \(8,\) is of another network: no such"),
        ({"stem_conv": np.ones(9, bool)}, r"'stem_conv' .* another network: 8 filters there"),
        ({"stem_conv": np.zeros(8, bool)}, "of 'stem_conv' is pruned by its mask but not zero"),
    ],
)
def test_bad_masks(masked, changes, pattern):
    variables, masks = masked
    with pytest.raises(UserError, match=pattern) as error:
        remove_filters(NETWORK, variables, masks | changes)
    assert "\n" not in str(error.value)


def test_a_convolution_without_filters(masked):
    variables, _ = masked
    kernel = np.zeros_like(variables["params"]["stem_conv"]["kernel"])
    params = variables["params"] | {"stem_conv": {"kernel": kernel}}
    with pytest.raises(UserError, match="no filter of 'stem_conv' is left"):
        remove_filters(NETWORK, variables | {"params": params})


@pytest.mark.parametrize(
    ("call", "pattern"),
    [
        (
            lambda v, m: remove_filters(FAMILIES["vgg"], v, m),
            "not the variables of this VGG: stage",
        ),
        (lambda v, m: remove_filters(NETWORK, v, m, multiple=0), "multiple=0"),
        (lambda v, m: remove_filters(*remove_filters(NETWORK, v, m)[:2]), "compact already"),
    ],
)
def test_refusals(masked, call, pattern):
    with pytest.raises(UserError, match=pattern) as error:
        call(*masked)
    assert "\n" not in str(error.value)
