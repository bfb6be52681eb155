"""What networks say of their filters: complete, and true to their shapes."""

from __future__ import annotations

import numpy as np
import pytest

from kdjax import models
from kdjax.compaction import filter_groups
from kdjax.errors import UserError
from kdjax.pruning import FilterGroup
from kdjax.tree import leaves
from tests.models.families import FAMILIES, shapes_of

EVERY = pytest.mark.parametrize("name", FAMILIES)
RESIDUAL = ("resnet", "wide resnet", "mobilenet v2")


@pytest.fixture(scope="module")
def shapes():
    return {
        name: {path: leaf.shape for path, leaf in leaves(shapes_of(network)["params"]).items()}
        for name, network in FAMILIES.items()
    }


@EVERY
def test_every_convolution_is_in_one_link(shapes, name):
    convs = {path for path, shape in shapes[name].items() if len(shape) == 4}
    linked = [f"{conv}/kernel" for link in FAMILIES[name].filter_links() for conv in link.convs]
    assert len(linked) == len(set(linked))
    assert {path for path in convs if "/gates/" not in path} == set(linked)


@EVERY
def test_links_fit_the_shapes(shapes, name):
    read = []
    for link in FAMILIES[name].filter_links():
        assert len(link.convs) == len(link.norms)
        filters = shapes[name][f"{link.name}/kernel"][-1]
        assert filters % link.groups == 0
        for conv in link.convs[1:]:
            assert shapes[name][f"{conv}/kernel"][-2:] == (1, filters)
        for norm in filter(None, link.norms):
            assert shapes[name][f"{norm}/scale"] == (filters,)
        for consumer in link.consumers:
            assert shapes[name][f"{consumer}/kernel"][-2] == filters
        read += link.consumers
        assert link.consumers or not link.shared
    assert len(read) == len(set(read))


@EVERY
def test_sums_fit_the_shapes(shapes, name):
    network = FAMILIES[name]
    sums = network.residual_groups()
    has_sums = name.startswith(RESIDUAL) and "padding" not in name
    assert bool(sums) == has_sums
    written = [conv for each in sums for conv in each.convs]
    assert len(written) == len(set(written))
    links = {link.name: link for link in network.filter_links()}
    for each in sums:
        assert len(each.convs) > 1
        (width,) = {shapes[name][f"{conv}/kernel"][-1] for conv in each.convs}
        assert all(shapes[name][f"{norm}/scale"] == (width,) for norm in each.norms)
        assert all(shapes[name][f"{layer}/kernel"][-2] == width for layer in each.consumers)
        # A summand of its own has no other readers than the sum's.
        readers = {layer for conv in each.convs for layer in links[conv].consumers}
        assert readers <= set(each.consumers)


def test_links_of_a_residual_network_by_hand():
    network = FAMILIES["resnet"].clone(blocks=(1, 1))
    link = models.Link
    first, second = "stage1_block0", "stage2_block0"
    assert network.filter_links() == (
        link(("stem_conv",), ("stem_bn",), (f"{first}/conv1",), shared=True),
        link((f"{first}/conv1",), (f"{first}/bn1",), (f"{first}/conv2",)),
        link((f"{first}/conv2",), (f"{first}/bn2",)),
        link((f"{second}/conv1",), (f"{second}/bn1",), (f"{second}/conv2",)),
        link((f"{second}/conv2",), (f"{second}/bn2",)),
        link((f"{second}/shortcut_conv",), (f"{second}/shortcut_bn",), projection=True),
    )
    assert network.residual_groups() == (
        models.ResidualGroup(
            "stem_sum",
            ("stem_conv", f"{first}/conv2"),
            (),
            (f"{first}/conv1", f"{second}/conv1", f"{second}/shortcut_conv"),
        ),
        models.ResidualGroup(
            f"{second}_sum",
            (f"{second}/shortcut_conv", f"{second}/conv2"),
            (),
            ("classifier",),
        ),
    )


def test_groups_one_by_one():
    network = FAMILIES["resnet"].clone(blocks=(1, 1))
    groups = filter_groups(network)
    names = ["stem_conv", "stage1_block0/conv1", "stage1_block0/conv2"]
    names += ["stage2_block0/conv1", "stage2_block0/conv2"]
    assert groups == [FilterGroup(n, (f"{n}/kernel",), (f"{n}/kernel",)) for n in names]
    with_projection = filter_groups(network, norms=True, projections=True)
    assert [group.name for group in with_projection] == [*names, "stage2_block0/shortcut_conv"]
    assert with_projection[-1].masked == ("stage2_block0/shortcut_conv/kernel",)
    assert with_projection[-1].settled == (
        "stage2_block0/shortcut_bn/scale",
        "stage2_block0/shortcut_bn/bias",
    )


def test_groups_of_residual_sums():
    network = FAMILIES["wide resnet"]
    groups = {group.name: group for group in filter_groups(network, norms=True, residual=True)}
    assert list(groups)[:3] == ["stem_sum", "stage1_block0/conv1", "stage2_block0/conv1"]
    assert groups["stem_sum"].scored == ("stem_conv/kernel", "stage1_block0/conv2/kernel")
    # The BatchNorms that read the sum, which is where its channels get a bias.
    norms = {path.rpartition("/")[0] for path in groups["stem_sum"].settled}
    assert norms == {"stage1_block0/bn1", "stage2_block0/bn1"}
    last = groups["stage3_block0_sum"]
    assert "stage3_block0/shortcut_conv/kernel" in last.scored
    assert "final_bn/scale" in last.settled


def test_depthwise_convolutions_are_in_the_group_before_them():
    groups = {group.name: group for group in filter_groups(FAMILIES["mobilenet v2"])}
    block = "stage2_block0"
    kernels = (f"{block}/expand_conv/kernel", f"{block}/depthwise_conv/kernel")
    assert groups[f"{block}/expand_conv"].scored == kernels
    assert f"{block}/depthwise_conv" not in groups


def test_groups_of_a_smaller_network_know_what_is_gone():
    kept = {"stem_conv": np.arange(8) > 2, "stage1_block0/conv1": np.arange(8) > 0}
    network = FAMILIES["resnet"].clone(compaction=models.Compaction.of(kept))
    removed = {group.name: group.removed for group in filter_groups(network)}
    assert (removed.pop("stem_conv"), removed.pop("stage1_block0/conv1")) == (3, 1)
    assert set(removed.values()) == {0}


@pytest.mark.parametrize("name", ["vgg", "resnet, padding"])
def test_networks_without_sums_of_one_width(name):
    with pytest.raises(UserError, match=r"residual=True: .* has no residual sums") as error:
        filter_groups(FAMILIES[name], residual=True)
    assert "\n" not in str(error.value)


def test_networks_that_say_nothing():
    class Silent(models.VGG):
        def filter_links(self):
            return models.StagedNetwork.filter_links(self)

    with pytest.raises(UserError, match="Silent does not say how its filters are linked"):
        filter_groups(Silent(num_classes=5))
