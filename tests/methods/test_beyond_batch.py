"""MCL with memory banks, on MoCo and on SimCLR: what a step learns from and remembers."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import config as configs
from kdjax import losses, methods, models
from kdjax.errors import UserError
from kdjax.methods import MEMORY
from kdjax.methods.baselines.distillation.negatives import by_class, draw_contrast
from kdjax.numerics import unit
from tests.models import helpers

LABELS = np.array([0, 1, 0, 2, 1, 0, 1, 0, 3])  # classes 2 and 3 have a single image
INDEX = np.array([7, 1, 3, 8])
VIEWS = np.stack([helpers.IMAGES, helpers.IMAGES[:, :, ::-1]], axis=1)
BATCH = {
    "image": helpers.IMAGES,
    "views": VIEWS,
    "label": LABELS[INDEX],
    "index": INDEX,
    "step": np.int32(3),
}
QUEUE = 6


def make(name: str, count: int = 2, **changes) -> methods.Method:
    sizes = {"mcl_memory": {"negatives": 5}, "moco": {"queue": QUEUE, "momentum": 0.9}}
    context = {"train_labels": LABELS} if name == "mcl_memory" else {}
    settings = dict(configs.base()[name]) | sizes.get(name, {}) | {"projection_features": 6}
    cohort = models.Cohort(tuple(helpers.tiny() for _ in range(count)))
    return getattr(methods, name)(cohort, **settings | changes, **context)


@functools.cache
def stepped(name: str, count: int = 2):
    """The state before a step; metrics, the state after it, and gradients."""
    method = make(name, count)

    @jax.jit
    def run(key, batch):
        params, model_state = method.init(key, helpers.IMAGES)
        gradient = jax.value_and_grad(method.loss, has_aux=True)
        (loss, (after, metrics)), grads = gradient(params, model_state, batch, key)
        return params, model_state, metrics | {"loss": loss}, after, grads

    return run(jax.random.key(0), BATCH)


def lengths(x):
    return np.linalg.norm(x, axis=-1)


def test_contrast_is_of_the_class_and_of_others():
    keys = jax.random.split(jax.random.key(0), len(LABELS))
    index = np.arange(len(LABELS))
    drawn = jax.jit(functools.partial(draw_contrast, positives=60, negatives=200))
    found = np.asarray(drawn(keys, LABELS, index, by_class(LABELS)))
    np.testing.assert_array_equal(found[:, 0], index)
    for image, label in enumerate(LABELS):
        same = np.flatnonzero((label == LABELS) & ((index != image) | (label >= 2)))
        np.testing.assert_array_equal(np.unique(found[image, 1:61]), same)
        others, counts = np.unique(found[image, 61:], return_counts=True)
        np.testing.assert_array_equal(others, np.flatnonzero(label != LABELS))
        assert counts.min() > 0.3 * counts.mean()
    order = np.array([4, 2, 0])
    np.testing.assert_array_equal(
        drawn(keys[order], LABELS[order], order, by_class(LABELS)), found[order]
    )


def test_banks_move_the_rows_of_the_batch():
    _, before, metrics, after, grads = stepped("mcl_memory")
    others = np.setdiff1d(np.arange(len(LABELS)), INDEX)
    for name in ("network_0", "network_1"):
        old, new = before[MEMORY][name], after[MEMORY][name]
        assert old.shape == (len(LABELS), 6)
        np.testing.assert_allclose(lengths(new), 1, rtol=1e-5)
        np.testing.assert_array_equal(new[others], old[others])
        assert (np.abs(new - old)[INDEX].max(axis=1) > 1e-3).all()
    expected = metrics["cross_entropy"] + 0.1 * (metrics["vcl"] + metrics["icl"])
    expected += metrics["soft_vcl"] + metrics["soft_icl"]
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(grads["heads"]))


def test_momentum_encoders_follow_and_keys_enter_the_queue():
    params, before, _, after, grads = stepped("moco")
    old, new = before[MEMORY], after[MEMORY]
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7),
        new["encoders"],
        losses.momentum_update(old["encoders"], params, 0.9),
    )
    assert int(new["pointer"]) == 4
    for name in ("network_0", "network_1"):
        np.testing.assert_array_equal(new["queues"][name][4:], old["queues"][name][4:])
        np.testing.assert_allclose(lengths(new["queues"][name]), 1, rtol=1e-5)
        assert (new["queues"][name][:4] != old["queues"][name][:4]).all(axis=1).all()
    classifier = grads["cohort"]["network_0"].pop("classifier")
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(classifier))


@pytest.mark.slow
def test_momentum_encoders_begin_as_the_networks():
    method = make("moco")

    @jax.jit
    def run(key):
        params, model_state = method.init(key, helpers.IMAGES)
        trained = jax.tree.map(lambda leaf: leaf + 1, params)  # by config.start, say
        _, (after, _) = method.loss(trained, model_state, BATCH | {"step": jnp.int32(0)}, key)
        return trained, after[MEMORY]["encoders"]

    trained, encoders = run(jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, encoders, trained)


def test_one_network_is_simclr():
    params, model_state, metrics, _, _ = stepped("simclr", 1)
    images = VIEWS.reshape(-1, *VIEWS.shape[2:])
    network = helpers.tiny()
    variables = {
        "params": params["cohort"]["network_0"],
        "batch_stats": model_state["batch_stats"]["network_0"],
    }
    outputs, _ = jax.jit(functools.partial(network.apply, train=True, mutable=["batch_stats"]))(
        variables, images
    )
    head = params["heads"]["head_0"]
    x = jax.nn.relu(outputs.embedding @ head["hidden"]["kernel"] + head["hidden"]["bias"])
    z = np.asarray(unit(x @ head["output"]["kernel"] + head["output"]["bias"]), np.float64)
    similarity = np.exp(z @ z.T / 0.1)
    np.fill_diagonal(similarity, 0)
    other = np.arange(8) ^ 1  # the other view of the same image
    expected = -np.log(similarity[np.arange(8), other] / similarity.sum(axis=1)).mean()
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-4)
    assert not any(metrics[name] for name in ("icl", "soft_vcl", "soft_icl"))


def test_all_views_are_shown():
    inputs = make("simclr").inputs(BATCH, None)
    np.testing.assert_array_equal(inputs.images[1::2], VIEWS[:, 1])
    np.testing.assert_array_equal(inputs.labels[:, 0], np.repeat(LABELS[INDEX], 2))
    assert tuple(inputs.notes[:2]) == ("view 0", "view 1")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("moco", {"sync_batch_norm": False}, r"'moco': .* set config\.sync_batch_norm to True"),
        ("simclr", {"sync_batch_norm": False}, r"'simclr': .*config\.sync_batch_norm to True"),
        ("moco", {"moco.queue": 100}, r"moco\.queue=100 does not hold .* 128 images"),
        ("moco", {"data.views": 1}, r"contrasts two views of an image; set config\.data\.views"),
        ("mcl_memory", {"networks": ("resnet8",)}, "needs at least two networks"),
    ],
)
def test_settings_that_do_not_go_together(name, changes, message):
    config = configs.cifar_run(name, "digits,resnet8", count=2)
    config.batch_size = 128
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=message):
        configs.validate(config)


def test_memory_contrast_needs_the_labels_of_all_images():
    cohort = models.Cohort((helpers.tiny(), helpers.tiny()))
    with pytest.raises(ValueError, match="give train_labels"):
        methods.mcl_memory(cohort, train_labels=None)
    with pytest.raises(UserError, match="no images of other classes"):
        methods.mcl_memory(cohort, train_labels=np.zeros(4, int))
