"""Regularized labels, logits and classifiers: what networks learn, and what is refused."""

from __future__ import annotations

import functools

import jax
import numpy as np
import optax
import pytest

from kdjax import losses, methods, models
from kdjax.errors import UserError
from kdjax.interop import torch as interop
from kdjax.methods import base, self_distillation
from tests import golden
from tests.models import helpers

BATCH = {"image": helpers.IMAGES, "label": np.array([0, 1, 2, 3]), "index": np.arange(4)}
LABELS = BATCH["label"]
# Compiling is most of what these tests do.


def cohort(count: int = 2, **fields) -> models.Cohort:
    network = helpers.tiny(blocks=(1,), widths=(4,), **fields)
    return models.Cohort((network,) * count)


@functools.cache
def state() -> tuple[dict, dict]:
    return helpers.random_variables(methods.cross_entropy(cohort()))


@functools.cache
def outputs() -> tuple[models.Outputs, ...]:
    """Of both networks of `state`, in training mode."""
    params, model_state = state()
    run = functools.partial(cohort().apply, train=True, mutable=["batch_stats"])
    variables = {"params": params["cohort"], "batch_stats": model_state["batch_stats"]}
    return jax.jit(run)(variables, helpers.IMAGES)[0]


def summed(function) -> float:
    """The mean over images of `function(logits)`, summed over networks."""
    return sum(float(np.mean(function(each.logits))) for each in outputs())


def plain(logits):
    return losses.cross_entropy(logits, LABELS)


def smoothed(form):
    return lambda logits: losses.label_smoothing(logits, LABELS, smoothing=0.2, form=form)


def taught(form):
    settings = {"smoothing": 0.1, "temperature": 5.0, "form": form}
    return lambda logits: losses.tf_kd(logits, LABELS, **settings)


def penalty(form):
    return lambda logits: losses.confidence_penalty(logits, form=form)


def focal(logits):
    return losses.focal(logits, LABELS, gamma=2.0)


TEACHER = {"smoothing": 0.1, "temperature": 5.0}
# (method, settings, [(weight, loss), ...])
CASES = [
    ("focal", {"gamma": 2.0}, [(1.0, focal)]),
    ("tf_kd", {"weight": 0.3, "form": "paper", **TEACHER}, [(0.7, plain), (0.3, taught("paper"))]),
    (
        "tf_kd",
        {"weight": 0.3, "form": "library", **TEACHER},
        [(1.0, plain), (0.3, taught("library"))],
    ),
]
for _form in ("paper", "library"):
    CASES += [
        ("label_smoothing", {"smoothing": 0.2, "form": _form}, [(1.0, smoothed(_form))]),
        ("max_entropy", {"weight": 0.5, "form": _form}, [(1.0, plain), (0.5, penalty(_form))]),
    ]


@pytest.mark.parametrize(
    ("name", "settings", "terms"),
    [pytest.param(*case, id=f"{case[0]} {case[1].get('form', '')}") for case in CASES],
)
def test_networks_learn_each_for_itself(name, settings, terms):
    method = getattr(self_distillation, name)(cohort(), **settings)
    loss, (model_state, metrics) = jax.jit(method.loss)(*state(), BATCH, None)
    expected = sum(weight * summed(function) for weight, function in terms)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    np.testing.assert_allclose(metrics["cross_entropy"], summed(plain), rtol=1e-4)
    names = {"max_entropy": "confidence_penalty", "tf_kd": "distillation"}
    if name in names:
        np.testing.assert_allclose(metrics[names[name]], summed(terms[1][1]), rtol=1e-4)
    accuracies = [np.mean(each.logits.argmax(-1) == LABELS) for each in outputs()]
    assert accuracies == [metrics[f"network_{i}/accuracy"] for i in range(2)]
    assert jax.tree.structure(model_state) == jax.tree.structure(state()[1])


# Virtual softmax


def kernel(params, i: int) -> np.ndarray:
    return params["cohort"][f"network_{i}"]["classifier"]["kernel"]


def biases(params) -> list[np.ndarray]:
    return [np.asarray(each["classifier"]["bias"]) for each in params["cohort"].values()]


@functools.cache
def virtual_step(form: str):
    method = self_distillation.virtual_softmax(cohort(), form=form)
    run = jax.jit(jax.value_and_grad(method.loss, has_aux=True))
    (loss, _), gradients = run(*state(), BATCH, None)
    return loss, gradients


@pytest.mark.parametrize("form", ["paper", "library"])
def test_the_virtual_class_is_one_more_for_every_network(form):
    loss, gradients = virtual_step(form)
    params, expected = state()[0], 0.0
    for i, each in enumerate(outputs()):
        weights, embedding = kernel(params, i), each.embedding
        logits = embedding @ weights if form == "paper" else each.logits
        expected += losses.virtual_softmax(logits, embedding, weights, LABELS).mean()
        assert np.abs(kernel(gradients, i)).max() > 0
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    for bias in biases(gradients):
        assert (np.abs(bias).max() > 0) == (form == "library")


def test_classifiers_of_the_paper_have_no_bias_at_any_time(monkeypatch):
    method = self_distillation.virtual_softmax(cohort(), form="paper")
    with monkeypatch.context() as patch:  # compiling JAX's random numbers takes seconds
        patch.setattr(base, "init_cohort", lambda *arguments: state())
        params, _ = method.init(None, None)
    tx = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1, momentum=0.9))
    updates, _ = tx.update(virtual_step("paper")[1], tx.init(params), params)
    for each in (params, optax.apply_updates(params, updates)):
        np.testing.assert_array_equal(np.stack(biases(each)), 0)

    params, model_state = state()  # with a bias, as another method leaves it
    assert np.abs(biases(params)).min() > 0
    found = jax.jit(method.predict)(params, model_state, helpers.IMAGES)
    variables = {"params": params["cohort"], "batch_stats": model_state["batch_stats"]}
    both = jax.jit(cohort().apply)(variables, helpers.IMAGES)
    for i, each in enumerate(both):
        expected = each.embedding @ kernel(params, i)
        np.testing.assert_allclose(found[f"network_{i}"], expected, rtol=1e-4, atol=1e-5)


def test_networks_that_share_stages_have_a_virtual_class_each():
    shared = models.Cohort((helpers.tiny(blocks=(1, 1), widths=(4, 4)),) * 2, shared_stages=1)
    method = self_distillation.virtual_softmax(shared, form="paper")
    variables = jax.eval_shape(method.init, jax.random.key(0), helpers.IMAGES)
    loss, _ = jax.eval_shape(method.loss, *variables, BATCH, None)
    assert loss.shape == ()


@pytest.mark.slow
@pytest.mark.skipif(golden.root() is None, reason="golden numbers not found")
def test_virtual_softmax_of_the_official_network():
    record, arrays, images = golden.network("selfkd_CIFAR_ResNet18")
    module = models.create("selfkd_resnet18", num_classes=100)
    variables, _ = interop.import_state_dict(module, golden.state_dict(record))
    found = jax.jit(module.apply)(variables, images)
    weights = variables["params"]["classifier"]["kernel"]
    labels = np.array(record["virtual_softmax_targets"])
    logits = losses.virtual_logits(found.logits, found.embedding, weights, labels)
    golden.assert_close(logits, arrays["eval_virtual_softmax_logits"], 1e-5)


SETTINGS = {
    "label_smoothing": {"smoothing": 0.1, "form": "paper"},
    "focal": {"gamma": 2.0},
    "max_entropy": {"weight": 0.5, "form": "paper"},
    "tf_kd": {"weight": 0.1, "smoothing": 0.1, "temperature": 20.0, "form": "paper"},
    "virtual_softmax": {"form": "paper"},
}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("label_smoothing", {"smoothing": 1.0}, "smoothing=1.0: must be at least 0 and less than"),
        ("focal", {"gamma": -1.0}, "gamma=-1.0: must be at least 0"),
        ("tf_kd", {"weight": 1.5}, "weight=1.5 must be less than 1"),
        ("tf_kd", {"temperature": 0.0}, "temperature=0.0: must be positive"),
        *(
            (name, {"form": "official"}, "form='official' is unknown; use 'paper' or 'library'")
            for name, settings in SETTINGS.items()
            if "form" in settings
        ),
    ],
)
def test_settings_that_are_refused(name, change, message):
    with pytest.raises(UserError, match=rf"config\.{name}[.:] ?{message}"):
        getattr(self_distillation, name)(cohort(), **SETTINGS[name] | change)
