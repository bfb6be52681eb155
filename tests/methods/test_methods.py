"""What all methods have in common, the two baselines, and what a config may not ask for."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from kdjax import config as configs
from kdjax import losses, methods, models
from kdjax.errors import UserError
from tests.models import helpers

BATCH = {"image": helpers.IMAGES, "label": np.array([0, 1, 2, 3]), "index": np.arange(4)}


def cohort(count: int = 2) -> models.Cohort:
    return models.Cohort(tuple(helpers.tiny() for _ in range(count)))


@functools.cache
def state(count: int = 2) -> tuple[dict, dict]:
    return helpers.random_variables(methods.cross_entropy(cohort(count)))


def run(method: methods.Method):
    """`(loss, metrics, new model state), gradients` for the batch."""

    @jax.jit
    def value_and_gradient(params, model_state):
        return jax.value_and_grad(method.loss, has_aux=True)(params, model_state, BATCH, None)

    (loss, (model_state, metrics)), gradients = value_and_gradient(*state())
    return loss, metrics, model_state, gradients


def test_predictions_have_a_name_per_network_and_an_ensemble():
    params, model_state = state()
    predictions = jax.jit(methods.dml(cohort(), temperature=2.0).predict)(
        params, model_state, helpers.IMAGES
    )
    assert set(predictions) == {"network_0", "network_1", "ensemble"}
    mean = (predictions["network_0"] + predictions["network_1"]) / 2
    np.testing.assert_allclose(predictions["ensemble"], mean, rtol=1e-6)


def test_one_network_has_no_ensemble():
    predict = methods.cross_entropy(cohort(1)).predict
    shapes = jax.eval_shape(predict, *state(1), helpers.IMAGES)
    assert {name: each.shape for name, each in shapes.items()} == {"network_0": (4, 5)}


def test_networks_with_cross_entropy_are_independent():
    """The gradient of one network's own loss is its part of the gradient of the sum."""
    params, model_state = state()
    _, metrics, _, gradients = run(methods.cross_entropy(cohort()))
    alone = methods.cross_entropy(cohort(1))

    @jax.jit
    def own(params, model_state):
        return jax.value_and_grad(alone.loss, has_aux=True)(params, model_state, BATCH, None)

    total = 0.0
    for name in ("network_0", "network_1"):
        (loss, _), gradient = own(
            {"cohort": {"network_0": params["cohort"][name]}},
            {"batch_stats": {"network_0": model_state["batch_stats"][name]}},
        )
        helpers.assert_equal(gradient["cohort"]["network_0"], gradients["cohort"][name])
        total += loss
    np.testing.assert_allclose(metrics["cross_entropy"], total, rtol=1e-5)


def test_dml_adds_mutual_learning_and_updates_the_statistics():
    params, model_state = state()
    loss, metrics, updated, _ = run(methods.dml(cohort(), temperature=2.0))
    variables = {"params": params["cohort"], "batch_stats": model_state["batch_stats"]}
    outputs, expected = jax.jit(
        lambda variables: cohort().apply(
            variables, helpers.IMAGES, train=True, mutable=["batch_stats"]
        )
    )(variables)
    mutual = losses.mutual_learning([each.logits for each in outputs], temperature=2.0).mean()
    np.testing.assert_allclose(metrics["mutual"], mutual, rtol=1e-4)
    np.testing.assert_allclose(loss, metrics["cross_entropy"] + metrics["mutual"], rtol=1e-6)
    for i, each in enumerate(outputs):
        accuracy = np.mean(np.argmax(each.logits, -1) == BATCH["label"])
        assert metrics[f"network_{i}/accuracy"] == accuracy
    helpers.assert_equal(updated["batch_stats"], expected["batch_stats"])


@pytest.mark.parametrize("name", ["dml", "mcl"])
def test_methods_of_several_networks_refuse_one(name):
    options = dict(configs.base()[name])
    with pytest.raises(UserError, match=f"'{name}' needs at least two networks"):
        getattr(methods, name)(cohort(1), **options)


@pytest.mark.parametrize("name", ["cross_entropy", "dml", "mcl"])
def test_create(name):
    config = configs.base()
    config.method, config.networks, config.data.images_per_class = name, ("resnet8",) * 2, 2
    method = methods.create(config, num_classes=5, axis_name=None)
    params, model_state = jax.eval_shape(method.init, jax.random.key(0), helpers.IMAGES)
    assert set(params["cohort"]) == {"network_0", "network_1"}
    assert ("heads" in params) == (name == "mcl")
    loss, _ = jax.eval_shape(method.loss, params, model_state, BATCH, jax.random.key(0))
    assert loss.shape == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "mlc"}, "config.method='mlc' is unknown; did you mean 'mcl'"),
        ({"dtype": "float16"}, "config.dtype='float16' is unknown; use 'float32' or 'bfloat16'"),
        ({"networks": ()}, "config.networks is empty"),
        ({"networks": ("resnet33",)}, "resnet33"),
        ({"method": "mcl", "networks": ("resnet8",) * 2}, "set config.data.images_per_class to 2"),
    ],
)
def test_create_refuses(change, message):
    config = configs.base()
    config.update(change)
    with pytest.raises(UserError, match=message):
        methods.create(config, num_classes=5, axis_name=None)


@pytest.mark.parametrize("shared_stages", [-1, 4])
def test_stages_that_do_not_exist_cannot_be_shared(shared_stages):
    config = configs.base()
    config.networks = ("resnet8", "resnet8")
    config.shared_stages = shared_stages
    with pytest.raises(UserError, match=f"config.shared_stages={shared_stages}: resnet8 has 3"):
        methods.create(config, num_classes=10, axis_name=None)
