"""What every network promises: partial execution, dtypes, names, errors, counts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models
from kdjax.errors import UserError
from tests.models.helpers import IMAGES, assert_equal, random_variables, tiny

NAMES = ["resnet8", "wrn_16_1"]


def shapes_of(module, x, **kwargs):
    return jax.eval_shape(lambda: module.init(jax.random.key(0), x, **kwargs))


@pytest.mark.parametrize("family", ["resnet", "wrn"])
def test_parts_equal_the_whole(family):
    module = tiny(family)
    variables = random_variables(module)
    run = jax.jit(module.apply, static_argnames=("start", "stop"))
    whole = run(variables, IMAGES)
    assert list(whole.features) == ["stage1", "stage2", "stage3"]
    for cut in (1, 2, 3):
        early = run(variables, IMAGES, stop=cut)
        assert early.logits is None and early.embedding is None
        assert list(early.features) == [f"stage{number}" for number in range(1, cut + 1)]
        late = run(variables, early.features[f"stage{cut}"], start=cut)
        assert list(late.features) == [f"stage{number}" for number in range(cut + 1, 4)]
        assert_equal(late._replace(features=early.features | late.features), whole)
    middle = run(variables, whole.features["stage1"], start=1, stop=2)
    assert_equal(middle.features, {"stage2": whole.features["stage2"]})


@pytest.mark.parametrize("name", NAMES)
def test_only_the_part_that_runs_has_variables(name):
    module = models.create(name, num_classes=10)
    whole = shapes_of(module, IMAGES)
    feature = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), IMAGES)[0].features)
    early = shapes_of(module, IMAGES, stop=1)
    late = shapes_of(module, jnp.zeros(feature["stage1"].shape), start=1)
    for collection in ("params", "batch_stats"):
        assert not early[collection].keys() & late[collection].keys()
        assert early[collection] | late[collection] == whole[collection]


@pytest.mark.parametrize("name", models.names())
def test_shapes_of_every_network(name):
    module = models.create(name, num_classes=7)
    outputs, variables = jax.eval_shape(
        lambda: module.init_with_output(jax.random.key(0), jnp.zeros((2, 32, 32, 3)))
    )
    assert outputs.logits.shape == (2, 7)
    # Some families have another convolution between the last stage and the embedding.
    assert outputs.embedding.ndim == 2 and len(outputs.embedding) == 2
    last = outputs.features[f"stage{module.num_stages}"]
    assert last.shape[:-1] == (2, 32 // module.stride, 32 // module.stride)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_keeps_parameters_and_logits_in_float32(name):
    module = models.create(name, num_classes=10, dtype=jnp.bfloat16)
    outputs, variables = jax.eval_shape(
        lambda: module.init_with_output(jax.random.key(0), IMAGES, train=True)
    )
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    assert outputs.logits.dtype == jnp.float32
    narrow = (outputs.embedding, outputs.features)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(narrow))


def test_axis_name_reaches_every_batch_norm():
    images = np.random.default_rng(1).normal(size=(8, 16, 16, 3)).astype(np.float32)
    one, many = tiny(), tiny(axis_name="batch")
    variables = random_variables(one)

    def run(module, images):
        return module.apply(variables, images, train=True, mutable=["batch_stats"])

    @jax.jit
    def both(images):
        split = images.reshape(4, 2, *images.shape[1:])
        return run(one, images), jax.vmap(lambda x: run(many, x), axis_name="batch")(split)

    (outputs, updates), (split_outputs, split_updates) = both(images)
    assert_equal(split_outputs.logits.reshape(outputs.logits.shape), outputs.logits)
    for device in range(4):
        assert_equal(jax.tree.map(lambda leaf, d=device: leaf[d], split_updates), updates)


def test_unknown_name_lists_the_nearest():
    with pytest.raises(UserError, match=r"unknown network 'resnet23'.*resnet20") as error:
        models.create("resnet23", num_classes=10)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="wrn_40_2"):
        models.create("?", num_classes=10)


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="resnet8"):
        models.register("resnet8", models.CifarResNet)


@pytest.mark.parametrize("name", NAMES)
def test_images_smaller_than_the_stride(name):
    module = models.create(name, num_classes=10)
    with pytest.raises(UserError, match=r"3x8 pixels .* stride of 4"):
        shapes_of(module, jnp.zeros((1, 3, 8, 3)))
    shapes_of(module, jnp.zeros((1, 4, 4, 3)))


@pytest.mark.parametrize("part", [(4, None), (-1, None), (2, 2), (0, 4), (0, 0)])
def test_parts_that_do_not_exist(part):
    module = models.create("resnet8", num_classes=10)
    with pytest.raises(UserError, match="start="):
        shapes_of(module, IMAGES, start=part[0], stop=part[1])


def test_one_image_without_batch_axis():
    with pytest.raises(UserError, match=r"\[B, H, W, C\]"):
        shapes_of(models.create("resnet8", num_classes=10), jnp.zeros((32, 32, 3)))


def test_multiply_adds_by_hand():
    module = models.CifarResNet(num_classes=5, blocks=(1,), widths=(4,), stem_width=2)
    stem, block, classifier = 64 * 27 * 2, 64 * (9 * 2 * 4 + 9 * 4 * 4 + 2 * 4), 4 * 5
    assert models.multiply_adds(module, (8, 8, 3)) == stem + block + classifier
