"""Groups of filters: patterns, the official choice, and what they refuse."""

import functools

import jax
import jax.numpy as jnp
import pytest

from kdjax import models, pruning
from kdjax.pruning import FilterGroup
from kdjax.pruning.groups import sizes


def shapes(name: str, **fields):
    module = models.create(name, num_classes=10).clone(**fields)
    images = jnp.zeros((1, 32, 32, 3))
    return jax.eval_shape(module.init, jax.random.key(0), images)["params"]


@pytest.fixture(scope="module")
def resnet():
    return shapes("resnet8")


def names(groups):
    return [group.name for group in groups]


def test_official_is_every_convolution_but_the_projections(resnet):
    groups = pruning.official(resnet)
    blocks = [f"stage{s}_block0/conv{c}" for s in (1, 2, 3) for c in (1, 2)]
    assert names(groups) == [*blocks, "stem_conv"]
    assert all(group.leaves == (f"{group.name}/kernel",) for group in groups)
    assert sizes(resnet, groups)["stage3_block0/conv2"] == 64


def test_official_takes_the_1x1_convolutions_of_bottlenecks():
    params = shapes("resnet110_bottleneck", blocks=(1, 1, 1))
    found = names(pruning.official(params))
    assert {"stage1_block0/conv1", "stage1_block0/conv2", "stage1_block0/conv3"} <= set(found)
    assert not [name for name in found if "shortcut" in name]


def test_official_knows_no_depthwise_convolution_but_a_first_layer_of_gray_images():
    gray = {"stem": {"kernel": jnp.zeros((3, 3, 1, 8))}}
    assert names(pruning.official(gray)) == ["stem"]
    depthwise = gray | {"depthwise": {"kernel": jnp.zeros((3, 3, 1, 8))}}
    with pytest.raises(ValueError, match=r"'depthwise/kernel' is a depthwise .*own filter groups"):
        pruning.official(depthwise)


def test_norms_add_the_batch_norm_behind_a_convolution_and_its_own_bias(resnet):
    first, *_, stem = pruning.official(resnet, norms=("conv", "bn"))
    layer = "stage1_block0/"
    assert first.leaves == (f"{layer}conv1/kernel", f"{layer}bn1/scale", f"{layer}bn1/bias")
    assert stem.leaves == ("stem_conv/kernel", "stem_bn/scale", "stem_bn/bias")
    biased = {
        "conv": {"kernel": jnp.zeros((3, 3, 3, 8)), "bias": jnp.zeros(8)},
        "bn": {"scale": jnp.zeros(8)},
    }
    (group,) = pruning.official(biased, norms=("conv", "bn"))
    assert group.leaves == ("conv/kernel", "conv/bias", "bn/scale")
    with pytest.raises(ValueError, match=r"no BatchNorm of 'conv': .* looks for it at 'norm'"):
        pruning.official(biased, norms=("conv", "norm"))


@pytest.mark.parametrize(
    ("patterns", "skip", "found"),
    [
        (["stem_conv/kernel"], (), ["stem_conv"]),
        (["**/conv1/kernel"], (), [f"stage{s}_block0/conv1" for s in (1, 2, 3)]),
        (["stage[12]_*/conv?/kernel"], ["stage2_*/conv2/*"], ["1/conv1", "1/conv2", "2/conv1"]),
        (["stage[!23]_*/**"], (), ["1/conv1", "1/conv2"]),
        (["**/stem*/kernel", "classifier/**"], (), ["classifier", "stem_conv"]),
        (["stage3_**"], ["**/conv*/*"], ["3/shortcut_conv"]),
        # The classifier is not pruned by a pattern that happens to match it.
        (["*/kernel"], (), ["stem_conv"]),
    ],
)
def test_patterns(resnet, patterns, skip, found):
    groups = pruning.by_pattern(resnet, patterns, skip=skip)
    short = [name.replace("stage", "").replace("_block0", "") for name in names(groups)]
    assert short == [name.replace("stage", "").replace("_block0", "") for name in found]


@pytest.mark.parametrize(
    ("patterns", "skip", "message"),
    [
        (
            ["**/conv9/kernel"],
            (),
            r"pattern '\*\*/conv9/kernel' matches no kernel; there are",
        ),
        (["*/kernel"], ["*/kernal"], r"skip pattern '\*/kernal' matches no kernel"),
        (["stem_bn/*"], (), "'stem_bn/\\*' matches no kernel"),
        (["stem_conv/*"], ["stem_*/*"], "every kernel that matches is skipped"),
        (["class*/kernel"], (), "matches dense layers only, such as 'classifier/kernel': spell"),
        ("stem_conv/*", (), "must be a list of strings"),
    ],
)
def test_patterns_that_find_nothing(resnet, patterns, skip, message):
    with pytest.raises(ValueError, match=message):
        pruning.by_pattern(resnet, patterns, skip=skip)


def test_networks_of_a_cohort(resnet):
    params = {"cohort": {"network_0": resnet, "network_1": resnet}}
    select = pruning.together(
        pruning.within("cohort/network_0", pruning.official),
        pruning.within(
            "cohort/network_1", functools.partial(pruning.by_pattern, patterns=["stem_conv/*"])
        ),
    )
    groups = select(params)
    assert len(groups) == 8
    assert groups[-1].name == "cohort/network_1/stem_conv"
    assert groups[-1].leaves == ("cohort/network_1/stem_conv/kernel",)
    assert sizes(params, groups)["cohort/network_0/stage2_block0/conv1"] == 32
    with pytest.raises(ValueError, match="no parameters under 'network_2'"):
        pruning.within("network_2", pruning.official)(params)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([], "found nothing to prune"),
        ([FilterGroup("a", ("a/kernel",), ()), FilterGroup("a", ("b/kernel",), ())], "two filter"),
        ([FilterGroup("a", (), ("a/kernel",))], "no scored kernel"),
        ([FilterGroup("a", ("c/kernel",), ())], "no array 'c/kernel'"),
        ([FilterGroup("a", ("a/kernel",), ("scalar",))], "no array 'scalar'"),
        ([FilterGroup("a", ("a/kernel",), ("b/kernel",))], "'b/kernel' has 5 filters, 'a/kernel'"),
        (
            [FilterGroup("a", ("a/kernel",), ()), FilterGroup("b", ("b/kernel",), ("a/kernel",))],
            "'a/kernel' is in two groups, 'a' and 'b'",
        ),
    ],
)
def test_groups_that_do_not_fit(groups, message):
    params = {
        "a": {"kernel": jnp.zeros((3, 4))},
        "b": {"kernel": jnp.zeros((3, 5))},
        "scalar": jnp.zeros(()),
    }
    with pytest.raises(ValueError, match=message):
        sizes(params, groups)


def test_table(resnet):
    lines = pruning.table(resnet, pruning.official(resnet), 0.4).splitlines()
    assert lines[0].split() == ["layer", "filters", "pruned", "rate"]
    assert lines[1].split() == ["stage1_block0/conv1", "16", "6", "37.5%"]
    assert lines[-2].split() == ["stem_conv", "16", "6", "37.5%"]
    assert lines[-1].split() == ["total", "240", "92", "38.3%"]
    assert len({len(line) for line in lines}) == 1
    gone = [FilterGroup("stem", ("stem_conv/kernel",), (), removed=4)]
    assert pruning.table(resnet, gone, 0.4).splitlines()[1].split()[1:3] == ["16", "4"]
