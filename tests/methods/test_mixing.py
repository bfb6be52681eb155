"""Mixup, CutMix and manifold mixup on tiny networks: what is mixed, and with whose labels."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import config as configs
from kdjax import losses, methods, models
from kdjax.errors import UserError
from kdjax.methods import self_distillation
from kdjax.methods.baselines.self_distillation.mixed_images import mixed_at
from tests.models import helpers

LABELS = np.array([0, 1, 2, 3])
BATCH = {"image": helpers.IMAGES, "label": LABELS, "index": np.arange(4)}
ALPHAS = {"mixup": 0.4, "cutmix": 1.0, "manifold_mixup": 2.0}
STAGES = 3


def cohort(shared_stages: int = 0) -> models.Cohort:
    return models.Cohort((helpers.tiny(),), shared_stages=shared_stages)


def make(name: str) -> methods.Method:
    return getattr(self_distillation, name)(cohort(), alpha=ALPHAS[name])


@functools.cache
def state() -> tuple[dict, dict]:
    return helpers.random_variables(methods.cross_entropy(cohort()))


def network_variables() -> dict:
    params, model_state = state()
    return {
        "params": params["cohort"]["network_0"],
        "batch_stats": model_state["batch_stats"]["network_0"],
    }


@functools.cache
def stepped(name: str) -> list:
    """What is shown, and `loss, (model state, metrics)`, for a few keys."""
    run, show = jax.jit(make(name).loss), make(name).inputs
    if name != "manifold_mixup":  # whose notes are texts
        show = jax.jit(show)
    keys = jax.random.split(jax.random.key(0), 3)
    return [(show(BATCH, key), run(*state(), BATCH, key)) for key in keys]


@jax.jit
def apply(variables, images):
    """Logits and batch statistics in training mode."""
    outputs, updated = helpers.tiny().apply(variables, images, train=True, mutable=["batch_stats"])
    return outputs.logits, updated["batch_stats"]


def expected_loss(logits, shown) -> float:
    """The mean over images of the cross entropies with their labels, as these are weighted."""
    probabilities = jnp.sum(jax.nn.one_hot(shown.labels, 5) * shown.weights[..., None], axis=1)
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-6)
    return losses.cross_entropy(logits, probabilities).mean()


def check_metrics(logits, shown, loss, metrics) -> None:
    np.testing.assert_allclose(loss, expected_loss(logits, shown), rtol=1e-4)
    np.testing.assert_allclose(metrics["cross_entropy"], loss, rtol=1e-6)
    hits = np.argmax(logits, -1)[:, None] == shown.labels
    accuracy = (hits * shown.weights).sum(-1).mean()
    np.testing.assert_allclose(metrics["network_0/accuracy"], accuracy, rtol=1e-5)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_what_is_shown_is_what_is_learned(name):
    lambdas = set()
    for shown, (loss, (updated, metrics)) in stepped(name):
        logits, batch_stats = apply(network_variables(), shown.images)
        check_metrics(logits, shown, loss, metrics)
        helpers.assert_equal(updated["batch_stats"]["network_0"], batch_stats)
        np.testing.assert_array_equal(shown.labels[:, 0], LABELS)
        assert sorted(np.asarray(shown.labels[:, 1])) == sorted(LABELS)
        lambdas.add(float(shown.weights[0, 0]))
    assert len(lambdas) == 3


def partners(shown) -> np.ndarray:
    """Which image each is mixed with: labels tell them apart."""
    return np.asarray(shown.labels[:, 1])


def test_images_of_mixup():
    for shown, _ in stepped("mixup"):
        lam = shown.weights[0, 0]
        expected = lam * helpers.IMAGES + (1 - lam) * helpers.IMAGES[partners(shown)]
        np.testing.assert_allclose(shown.images, expected, atol=1e-6)


def test_images_of_cutmix():
    shares = []
    for shown, _ in stepped("cutmix"):
        others = helpers.IMAGES[partners(shown)]
        own = np.asarray(shown.images) == helpers.IMAGES
        np.testing.assert_array_equal(np.where(own, helpers.IMAGES, others), shown.images)
        moved = partners(shown) != LABELS
        np.testing.assert_allclose(shown.weights[moved, 0], own[moved].mean((1, 2, 3)), rtol=1e-5)
        shares.append(float(shown.weights[0, 0]))
    assert min(shares) < 1


# Manifold mixup


def mixture(lam: float = 0.3) -> losses.Mixture:
    return losses.Mixture(jnp.float32(lam), np.array([2, 0, 3, 1]))


@jax.jit
def mix_inside(variables, place, mixture):
    """Outputs and batch statistics, one program for all places."""
    outputs, updated = helpers.tiny().apply(
        variables,
        helpers.IMAGES,
        train=True,
        hidden=mixed_at(place, mixture),
        mutable=["batch_stats"],
    )
    return outputs, updated["batch_stats"]


def mixed_inside(place: int):
    return mix_inside(network_variables(), place, mixture())


def in_parts(place: int):
    """The same by running a network in two parts."""
    network, variables = helpers.tiny(), network_variables()

    @jax.jit
    def run(variables):
        options = {"train": True, "mutable": ["batch_stats"]}
        first, updated = network.apply(variables, helpers.IMAGES, stop=place, **options)
        x = losses.mix(first.features[f"stage{place}"], mixture())
        outputs, more = network.apply(variables | updated, x, start=place, **options)
        features = first.features | {f"stage{place}": x} | outputs.features
        return outputs._replace(features=features), more["batch_stats"]

    return run(variables)


@pytest.mark.parametrize("place", [1, 2])
def test_one_program_mixes_at_any_stage(place):
    helpers.assert_equal(mixed_inside(place), in_parts(place))


def test_mixing_after_the_stem():
    """No part of a network ends at its stem, so what the stem makes is mixed here by hand."""
    (outputs, _), (other, _) = mixed_inside(0), mixed_inside(1)
    assert np.abs(outputs.logits - other.logits).max() > 1e-3

    @jax.jit
    def recorded(variables):
        seen = {}

        def hidden(number, x):
            if number == 0:
                seen["stem"] = x
                x = losses.mix(x, mixture())
            return x

        found, _ = helpers.tiny().apply(
            variables, helpers.IMAGES, train=True, hidden=hidden, mutable=["batch_stats"]
        )
        return found, seen["stem"]

    expected, stem = recorded(network_variables())
    helpers.assert_equal(outputs, expected)
    assert stem.shape == (4, 8, 8, 4)


def test_places_elsewhere_mix_nothing():
    """Place 9 is nowhere in the network, and all of it is as without mixing."""
    outputs, batch_stats = mixed_inside(9)
    logits, expected = apply(network_variables(), helpers.IMAGES)
    helpers.assert_equal((outputs.logits, batch_stats), (logits, expected))


def test_manifold_mixup_learns_what_it_shows():
    """The loss at the place and with the labels of `inputs`; its images are as they are."""
    places = {"the stem": 0, "stage 1": 1, "stage 2": 2}
    for shown, (loss, (updated, metrics)) in stepped("manifold_mixup"):
        np.testing.assert_array_equal(shown.images, helpers.IMAGES)
        assert len(shown.notes) == 4 and len(set(shown.notes)) == 1
        place = places[shown.notes[0].removeprefix("mixed after ")]
        own = losses.Mixture(shown.weights[0, 0], partners(shown))
        outputs, batch_stats = mix_inside(network_variables(), place, own)
        check_metrics(outputs.logits, shown, loss, metrics)
        helpers.assert_equal(updated["batch_stats"]["network_0"], batch_stats)


def test_every_place_is_drawn_as_often():
    method = make("manifold_mixup")
    notes = [method.inputs(BATCH, jax.random.key(seed)).notes[0] for seed in range(24)]
    counts = {note: notes.count(note) for note in set(notes)}
    assert set(counts) == {f"mixed after {place}" for place in ("the stem", "stage 1", "stage 2")}
    assert min(counts.values()) >= 4


def test_networks_of_a_cohort_mix_as_one_does():
    """Where a stage is shared, its end is mixed once."""
    variables = network_variables()
    early = ("stem", "stage1")

    def part(tree, shared):
        return {name: x for name, x in tree.items() if name.startswith(early) == shared}

    whole = {name: {"network_0": tree} for name, tree in variables.items()}
    shared = {
        name: {"trunk": part(tree, True), "network_0": part(tree, False)}
        for name, tree in variables.items()
    }
    options = {"train": True, "mutable": ["batch_stats"]}

    @jax.jit
    def run(place, *trees):
        hidden = mixed_at(place, mixture())
        return [
            cohort(stages).apply(tree, helpers.IMAGES, hidden=hidden, **options)[0][0]
            for stages, tree in enumerate(trees)
        ]

    for place in range(STAGES):
        first, second = run(place, whole, shared)
        helpers.assert_equal(first, second)
        helpers.assert_equal(first, mixed_inside(place)[0])


# All three


@pytest.mark.parametrize("name", sorted(ALPHAS))
def test_create(name):
    config = configs.base()
    config.method, config.networks = name, ("resnet8",) * 2
    method = methods.create(config, num_classes=5, axis_name=None)
    params, model_state = jax.eval_shape(method.init, jax.random.key(0), helpers.IMAGES)
    key = jax.random.key(0)
    loss, (_, metrics) = jax.eval_shape(method.loss, params, model_state, BATCH, key)
    assert loss.shape == ()
    assert set(metrics) == {"cross_entropy", "network_0/accuracy", "network_1/accuracy"}
    config[name].alpha = 0.0
    with pytest.raises(UserError, match=f"config.{name}.alpha=0.0: must be positive"):
        methods.create(config, num_classes=5, axis_name=None)


def test_manifold_mixup_needs_equally_many_stages():
    config = configs.base()
    config.method, config.networks = "manifold_mixup", ("resnet8", "vgg8")
    with pytest.raises(UserError, match="have 3 and 4 stages; name networks with equally many"):
        methods.create(config, num_classes=5, axis_name=None)
