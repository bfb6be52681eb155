"""DKS, BYOT, SAD and FRSKD on tiny networks: what is learned, and what is refused."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from kdjax import config as configs
from kdjax import losses, methods, models
from kdjax.errors import UserError
from kdjax.methods import self_distillation
from tests.models import helpers

LABELS = np.array([0, 1, 2, 3])
BATCH = {"image": helpers.IMAGES, "label": LABELS, "index": np.arange(4)}
HEADS = {
    "byot": ("branch1", "branch2"),
    "dks": ("branch1", "branch2"),
    "frskd": ("pyramid",),
    "sad": (),
}
# Settings other than the config's, small and all different.
SETTINGS = {
    "byot": {"temperature": 3.0, "feature_weight": 0.5},
    "dks": {"temperature": 3.0},
    "frskd": {
        "temperature": 3.0,
        "kd_weight": 0.5,
        "attention_weight": 7.0,
        "width": 1,
        "depth": 1,
        "form": "paper",
    },
    "sad": {"weight": 11.0},
}


def cohort(count: int = 1, **fields) -> models.Cohort:
    return models.Cohort((helpers.tiny(**fields),) * count)


def method(name: str, count: int = 1, **changes) -> methods.Method:
    return getattr(self_distillation, name)(cohort(count), **SETTINGS[name] | changes)


@functools.cache
def state(name: str) -> tuple[dict, dict]:
    """Random variables; a pyramid's sums have weights of one, since those below zero cut off."""

    def fill(path, leaf):
        return np.ones_like(leaf) if path[-1].key.endswith("_weights") else leaf

    return jax.tree_util.tree_map_with_path(fill, helpers.random_variables(method(name)))


@functools.cache
def step(name: str):
    """`loss, (model state, metrics)`, and what they are expected to be: value and statistics."""
    network, terms = with_heads(name)

    @jax.jit
    def both(params, model_state, variables):
        outputs, updated = network.apply(
            variables, helpers.IMAGES, train=True, mutable=["batch_stats"]
        )
        value = sum(each.mean() for each in terms(outputs))
        return method(name).loss(params, model_state, BATCH, None), (value, updated["batch_stats"])

    return both(*state(name), own_variables(name))


def own_variables(name: str) -> dict:
    """Of the only network of `state`."""
    params, model_state = state(name)
    trees = {"params": params["cohort"], "batch_stats": model_state["batch_stats"]}
    return {key: tree["network_0"] for key, tree in trees.items()}


def with_heads(name: str):
    """The network of a method, and the weighted terms of its outputs, written out once more."""
    network, options = helpers.tiny(), SETTINGS[name]
    if name == "sad":

        def terms(outputs):
            cross_entropy = losses.cross_entropy(outputs.logits, LABELS)
            return cross_entropy, options["weight"] * losses.sad([*outputs.features.values()])

        return network, terms
    if name == "frskd":

        def terms(outputs):
            found = losses.frskd(
                *(outputs.backbone.logits, outputs.logits),
                *(outputs.backbone.features, outputs.features, LABELS),
                temperature=3.0,
            )
            return found.cross_entropy, 0.5 * found.distillation, 7 * found.attention

        return models.Pyramid(network, width=1, depth=1), terms

    def terms(outputs):
        each = [outputs.backbone, outputs.branches["branch1"], outputs.branches["branch2"]]
        logits, maps = [x.logits for x in each], [x.features["stage3"] for x in each]
        if name == "dks":
            return losses.dks(logits, LABELS, temperature=3.0)
        found = losses.byot(logits, maps, LABELS, temperature=3.0)
        return found.cross_entropy, found.distillation, 0.5 * found.features

    make = models.dks_branches if name == "dks" else models.byot_branches
    return make(network), terms


@pytest.mark.parametrize("name", sorted(HEADS))
def test_loss_is_the_weighted_sum_of_the_terms_of_what_the_network_says(name):
    (loss, (updated, metrics)), (value, batch_stats) = step(name)
    np.testing.assert_allclose(loss, value, rtol=1e-4)
    helpers.assert_equal(updated["batch_stats"]["network_0"], batch_stats)
    assert {each.shape for each in metrics.values()} == {()}
    names = ["network_0", *(f"network_0/{head}" for head in HEADS[name])]
    accuracies = {each for each in metrics if each.endswith("/accuracy")}
    assert accuracies == {f"{each}/accuracy" for each in names}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(HEADS))
def test_all_of_the_networks_and_their_heads_is_trained(name):
    gradients, _ = jax.jit(jax.grad(method(name).loss, has_aux=True))(*state(name), BATCH, None)
    assert all(0 < np.abs(leaf).max() < np.inf for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("name", sorted(HEADS))
def test_predictions_are_those_of_the_networks_and_their_heads(name):
    heads = HEADS[name]
    made = method(name, 2)
    params, model_state = jax.eval_shape(made.init, jax.random.key(0), helpers.IMAGES)
    found = jax.eval_shape(made.predict, params, model_state, helpers.IMAGES)
    networks = [f"network_{index}" for index in range(2)]
    expected = [*networks, *(f"{each}/{head}" for each in networks for head in heads), "ensemble"]
    assert {key: each.shape for key, each in found.items()} == dict.fromkeys(expected, (4, 5))


def test_predictions_are_the_logits_in_evaluation_mode():
    network, _ = with_heads("dks")

    @jax.jit
    def both(params, model_state, own):
        outputs = network.apply(own, helpers.IMAGES)
        logits = {"network_0": outputs.backbone.logits}
        logits |= {f"network_0/{head}": x.logits for head, x in outputs.branches.items()}
        return method("dks").predict(params, model_state, helpers.IMAGES), logits

    helpers.assert_equal(*both(*state("dks"), own_variables("dks")))


def test_losses_of_networks_are_summed():
    params, model_state = state("dks")
    twice = [
        {key: dict.fromkeys(("network_0", "network_1"), tree["network_0"])}
        for part in (params, model_state)
        for key, tree in part.items()
    ]
    loss, (_, metrics) = jax.jit(method("dks", 2).loss)(*twice, BATCH, None)
    (one, (_, alone)), _ = step("dks")
    np.testing.assert_allclose(loss, 2 * one, rtol=1e-4)
    for term in ("cross_entropy", "distillation"):
        np.testing.assert_allclose(metrics[term], 2 * alone[term], rtol=1e-4)
    assert metrics["network_1/branch2/accuracy"] == alone["network_0/branch2/accuracy"]


def test_form_of_frskd_is_that_of_the_loss():
    (_, (_, paper)), _ = step("frskd")
    loss = method("frskd", form="library").loss
    _, (_, library) = jax.jit(loss)(*state("frskd"), BATCH, None)
    np.testing.assert_allclose(library["distillation"], paper["distillation"], rtol=1e-4)
    assert abs(library["attention"] - paper["attention"]) > 1e-4


@pytest.mark.parametrize("name", sorted(HEADS))
def test_the_settings_of_the_config_make_the_method(name):
    config = configs.base()
    config.method, config.networks = name, ("resnet8",)
    made = methods.create(config, num_classes=5, axis_name=None)
    params, model_state = jax.eval_shape(made.init, jax.random.key(0), helpers.IMAGES)
    loss, _ = jax.eval_shape(made.loss, params, model_state, BATCH, None)
    assert loss.shape == ()


@pytest.mark.parametrize("name", ["byot", "dks", "frskd"])
def test_networks_with_heads_share_nothing(name):
    config = configs.base()
    config.method, config.networks, config.shared_stages = name, ("resnet8",) * 2, 1
    with pytest.raises(UserError, match=f"shared_stages=1: networks of method '{name}' share"):
        methods.create(config, num_classes=5, axis_name=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": "papers"}, r"frskd.form='papers' is unknown; use 'paper'"),
        ({"width": 0}, r"frskd.width=0: must be at least 1"),
        ({"depth": -1}, r"frskd.depth=-1: must be at least 1"),
    ],
)
def test_frskd_refuses(change, message):
    with pytest.raises(UserError, match=message):
        method("frskd", **change)


@pytest.mark.parametrize("name", ["byot", "dks", "frskd"])
def test_temperatures_are_positive(name):
    with pytest.raises(UserError, match=f"config.{name}.temperature=0.0: must be"):
        method(name, temperature=0.0)


@pytest.mark.parametrize("name", ["byot", "dks"])
def test_networks_of_two_stages_have_no_branches(name):
    two = cohort(blocks=(1, 1), widths=(4, 8))
    with pytest.raises(UserError, match="need a network of three stages or more, not 2"):
        getattr(self_distillation, name)(two, **SETTINGS[name])


def test_maps_of_byot_must_agree():
    """A DenseNet with fewer layers is narrower."""
    narrow = models.Cohort((models.DenseNet(5, blocks=(1, 1, 2)),))
    made = self_distillation.byot(narrow, **SETTINGS["byot"])
    params, model_state = jax.eval_shape(made.init, jax.random.key(0), helpers.IMAGES)
    with pytest.raises(
        UserError, match=r"method 'byot' compares last maps, which are 2x2x"
    ) as error:
        jax.eval_shape(made.loss, params, model_state, BATCH, None)
    assert "\n" not in str(error.value)


def test_frskd_needs_maps_that_halve():
    made = method("frskd")
    with pytest.raises(UserError, match="maps that halve from stage to stage"):
        jax.eval_shape(made.init, jax.random.key(0), np.zeros((2, 9, 9, 3), np.float32))
