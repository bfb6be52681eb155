"""CS-KD, BAKE and DDGSD: groups of a class, whole batches and views of an image."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from kdjax import config as configs
from kdjax import losses, methods, models
from kdjax.errors import UserError
from kdjax.methods import base, self_distillation
from kdjax.runs.metrics import read
from kdjax.training import stages
from tests import tiny_runs as runs
from tests.models import helpers
from tests.tiny_runs import networks  # noqa: F401

IMAGES = np.random.default_rng(1).normal(size=(6, 8, 8, 3)).astype(np.float32)
GROUPS = {"image": IMAGES, "label": np.array([0, 0, 0, 3, 3, 3]), "index": np.arange(6)}
VIEWS = {
    "image": IMAGES[::2],
    "views": IMAGES.reshape(3, 2, 8, 8, 3),
    "label": np.array([0, 3, 1]),
    "index": np.arange(3),
}
BAKE = {"temperature": 4.0, "omega": 0.5, "form": "paper"}
DDGSD = {"temperature": 4.0, "feature_weight": 0.01, "form": "paper"}
# Compiling is most of what these tests do.


def cohort(count: int = 1, **fields) -> models.Cohort:
    network = helpers.tiny(blocks=(1,), widths=(4,), **fields)
    return models.Cohort((network,) * count)


@functools.cache
def state(count: int = 1) -> tuple[dict, dict]:
    return helpers.random_variables(methods.cross_entropy(cohort(count)))


def gradient(method: methods.Method):
    return jax.value_and_grad(method.loss, has_aux=True)


@functools.cache
def outputs() -> tuple[models.Outputs, ...]:
    """Of two networks, for all rows, in training mode."""
    return jax.jit(functools.partial(base.train_outputs, cohort(2)))(*state(2), IMAGES)[0]


# CS-KD


def test_cs_kd_shows_images_and_partners_one_after_the_other():
    """Written out: two passes, in which BatchNorm sees the images, or their partners, alone."""
    anchors, partners = IMAGES[[0, 3]], IMAGES[[1, 2, 4, 5]]
    labels = np.array([0, 3])

    def expected(params, model_state):
        found, model_state = base.train_outputs(cohort(2), params, model_state, anchors)
        taught, model_state = base.train_outputs(cohort(2), params, model_state, partners)
        taught = jax.lax.stop_gradient([each.logits.reshape(2, 2, 5) for each in taught])
        total = 0.0
        for each, other in zip(found, taught, strict=True):
            for k in (0, 1):
                total += losses.kd(each.logits, other[:, k], temperature=3.0).mean() / 2
            total += losses.cross_entropy(each.logits, labels).mean()
        return total, (model_state, [each.logits for each in found])

    run = jax.jit(jax.value_and_grad(expected, has_aux=True))
    (loss, (statistics, logits)), gradients = run(*state(2))
    method = self_distillation.cs_kd(cohort(2), temperature=3.0, partners=2)
    (value, (found, metrics)), found_gradients = jax.jit(gradient(method))(*state(2), GROUPS, None)
    np.testing.assert_allclose(value, loss, rtol=1e-5)
    helpers.assert_equal((found_gradients, found), (gradients, statistics))
    np.testing.assert_allclose(metrics["cross_entropy"] + metrics["distillation"], loss, rtol=1e-5)
    for i, each in enumerate(logits):
        assert metrics[f"network_{i}/accuracy"] == np.mean(each.argmax(-1) == labels)


def test_cs_kd_says_which_rows_are_partners():
    shown = self_distillation.cs_kd(cohort(), temperature=4.0, partners=2).inputs(GROUPS, None)
    assert shown.notes == ("image", "partner 1", "partner 2") * 2
    np.testing.assert_array_equal(shown.images, IMAGES)


# BAKE


def test_bake_is_cross_entropy_and_the_loss_among_all_rows():
    method = self_distillation.bake(cohort(2), **BAKE)
    loss, (_, metrics) = jax.jit(method.loss)(*state(2), GROUPS, None)
    bake = jax.jit(functools.partial(losses.bake, temperature=4.0, omega=0.5))
    found = outputs()
    distillation = sum(bake(each.logits, each.embedding).mean() for each in found)
    plain = sum(losses.cross_entropy(each.logits, GROUPS["label"]).mean() for each in found)
    np.testing.assert_allclose(metrics["distillation"], distillation, rtol=1e-4)
    np.testing.assert_allclose(loss, plain + distillation, rtol=1e-4)


# DDGSD


@pytest.mark.parametrize("form", ["paper", pytest.param("library", marks=pytest.mark.slow)])
def test_ddgsd_shows_both_views_in_one_batch(form):
    settings = DDGSD | {"form": form}
    method = self_distillation.ddgsd(cohort(2), **settings)
    loss, (_, metrics) = jax.jit(method.loss)(*state(2), VIEWS, None)
    labels, expected = VIEWS["label"], 0.0
    for i, each in enumerate(outputs()):
        logits, embedding = each.logits.reshape(3, 2, 5), each.embedding.reshape(3, 2, -1)
        terms = losses.ddgsd(logits, embedding, labels, temperature=4.0, form=form)
        expected += terms.cross_entropy.mean() + terms.distillation.mean()
        expected += 0.01 * terms.discrepancy.mean()
        accuracy = np.mean(logits.mean(1).argmax(-1) == labels)
        np.testing.assert_allclose(metrics[f"network_{i}/accuracy"], accuracy, rtol=1e-6)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_ddgsd_says_which_view_a_row_is():
    shown = self_distillation.ddgsd(cohort(), **DDGSD).inputs(VIEWS, None)
    np.testing.assert_array_equal(shown.images, IMAGES)
    assert shown.notes == ("view 1", "view 2") * 3
    np.testing.assert_array_equal(shown.labels[:, 0], [0, 0, 3, 3, 1, 1])


@pytest.mark.parametrize("views", [None, VIEWS["views"][:, [0, 1, 1]]])
def test_ddgsd_refuses_other_numbers_of_views(views):
    batch = VIEWS | {"views": views} if views is not None else GROUPS
    with pytest.raises(UserError, match=r"set config\.data\.views=2 \(it is [13]\)"):
        jax.eval_shape(self_distillation.ddgsd(cohort(), **DDGSD).loss, *state(), batch, None)


# All


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "batch", "devices"),
    [
        pytest.param(self_distillation.bake, GROUPS, 2, id="bake"),
        pytest.param(self_distillation.ddgsd, VIEWS, 3, id="ddgsd"),
        pytest.param(self_distillation.cs_kd, GROUPS, 2, id="cs_kd"),
    ],
)
def test_several_devices_compute_what_one_does(make, batch, devices):
    settings = {"bake": BAKE, "ddgsd": DDGSD, "cs_kd": {"temperature": 4.0, "partners": 2}}
    settings = settings[make.__name__]
    (loss, (after, _)), gradients = jax.jit(gradient(make(cohort(), **settings)))(
        *state(), batch, None
    )
    axis = {} if make is self_distillation.cs_kd else {"axis_name": "batch"}
    method = make(cohort(axis_name="batch"), **settings, **axis)

    @jax.jit
    @functools.partial(jax.vmap, axis_name="batch")
    def on_device(batch):
        (loss, (after, _)), gradients = gradient(method)(*state(), batch, None)
        return jax.lax.pmean((loss, after, gradients), "batch")

    sliced = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), batch)
    found = jax.tree.map(lambda x: x[0], on_device(sliced))
    helpers.assert_equal(found, (loss, after, gradients))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("bake", {"omega": 1.0}, "config.bake.omega=1.0: must be at least 0 and less"),
        ("bake", {"form": "official"}, "config.bake.form='official' is unknown"),
        (
            "bake",
            {"temperature": 0.0},
            "config.bake.temperature=0.0: must be positive",
        ),
        (
            "cs_kd",
            {"temperature": 0.0},
            "config.cs_kd.temperature=0.0: must be positive",
        ),
        (
            "ddgsd",
            {"temperature": 0.0},
            "config.ddgsd.temperature=0.0: must be positive",
        ),
        ("ddgsd", {"form": "official"}, "config.ddgsd.form='official' is unknown"),
    ],
)
def test_settings_that_are_refused(name, change, message):
    config = configured(name)
    config[name].update(change)
    with pytest.raises(UserError, match=message):
        methods.create(config, num_classes=5, axis_name=None)


def configured(name: str):
    """A config of a method with batches that it accepts."""
    config = configs.base()
    config.method, config.networks = name, ("resnet8",)
    config.data.views = 2 if name == "ddgsd" else 1
    config.data.partners = {"cs_kd": 1, "bake": 3}.get(name, 0)
    return config


@pytest.mark.parametrize(
    ("name", "setting", "least"),
    [("bake", "partners", 1), ("cs_kd", "partners", 1), ("ddgsd", "views", 2)],
)
def test_batches_of_single_images_are_refused(name, setting, least):
    config = configured(name)
    config.data[setting] = least - 1
    message = (
        rf"method '{name}' .*set config\.data\.{setting} to {least} or more \(it is {least - 1}"
    )
    with pytest.raises(UserError, match=message):
        methods.create(config, num_classes=5, axis_name=None)


@pytest.mark.parametrize("name", ["bake", "cs_kd", "ddgsd"])
def test_create(name):
    method = methods.create(configured(name), num_classes=5, axis_name=None)
    variables = jax.eval_shape(method.init, jax.random.key(0), IMAGES)
    batch = {"bake": GROUPS, "cs_kd": GROUPS, "ddgsd": VIEWS}[name]
    loss, _ = jax.eval_shape(method.loss, *variables, batch, None)
    assert loss.shape == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bake", "cs_kd", "ddgsd"])
def test_run(name, tmp_path):
    """Whole epochs with the batches that the feed makes for these settings."""
    config = configs.cifar_run(name, "digits,tiny", count=2)
    config.batch_size, config.epochs = 16, 2
    config.data.source = runs.write_arrays(tmp_path / "tiny.npz")
    config.data.views = configured(name).data.views
    config.data.partners = configured(name).data.partners
    stages.train(config, tmp_path / "run")
    rows = read(tmp_path / "run" / "metrics.jsonl")
    assert rows[1]["train/cross_entropy"] < rows[0]["train/cross_entropy"]
