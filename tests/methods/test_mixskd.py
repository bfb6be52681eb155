"""MixSKD on tiny networks: what is learned, from what, and what is refused."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax import config as configs
from kdjax import losses, methods, models
from kdjax.errors import UserError
from kdjax.methods import CONSTANTS
from kdjax.methods.mixskd_discriminators import DISCRIMINATORS, Discriminator
from tests.models import helpers

IMAGES = helpers.IMAGES
LABELS = np.array([0, 1, 2, 3])
BATCH = {"image": IMAGES, "label": LABELS, "index": np.arange(4)}
SETTINGS = {"alpha": 1.0, "temperature": 2.0, "mixed_labels": True, "train_discriminators": True}
STAGES = ("branch1", "backbone")
TERMS = losses.Mixskd._fields
KEY = jax.random.key(3)


def tiny(**fields) -> models.StagedNetwork:
    """Of two stages, the fewest that give a branch."""
    return helpers.tiny(**{"blocks": (1, 1), "widths": (4, 8)} | fields)


def network() -> models.SelfTaught:
    return models.self_taught(tiny())


def make(count: int = 1, **changes) -> methods.Method:
    return methods.mixskd(models.Cohort((network(),) * count), **SETTINGS | changes)


@functools.cache
def state() -> tuple[dict, dict]:
    """Of the method with discriminators that learn."""
    return helpers.random_variables(make())


def frozen_state() -> tuple[dict, dict]:
    """The same for the method with discriminators that do not."""
    params, model_state = state()
    constants = {DISCRIMINATORS: params[DISCRIMINATORS]}
    return {"cohort": params["cohort"]}, model_state | {CONSTANTS: constants}


@functools.cache
def stepped():
    """`(loss, (model state, metrics)), gradients`."""
    return jax.jit(jax.value_and_grad(make().loss, has_aux=True))(*state(), BATCH, KEY)


@functools.cache
def shown():
    """What is shown, the images before their mixtures, as the networks get them."""
    rows = jax.jit(make().inputs)(BATCH, KEY)
    return rows._replace(
        **{
            name: np.concatenate([getattr(rows, name)[::2], getattr(rows, name)[1::2]])
            for name in ("images", "labels", "weights")
        }
    )


def mixture() -> losses.Mixture:
    """As read off what is shown of the mixed images: labels tell images apart."""
    return losses.Mixture(shown().weights[-1, 0], np.asarray(shown().labels[4:, 1]))


@jax.jit
def written_out(params, batch_stats, images, mixture):
    """The terms of one network, its outputs and its statistics.

    The self-teacher looks at interpolated maps, as the official one does.
    """
    cohort = {"params": params["cohort"]["network_0"], "batch_stats": batch_stats}
    outputs, updated = network().apply(cohort, images, train=True, mutable=["batch_stats"])
    branches = [outputs.branches["branch1"], outputs.backbone]
    maps = [each.features["stage2"] for each in branches]
    pairs = [losses.mixed_pair(x, mixture) for x in maps]

    def judge(name, x):
        own = params[DISCRIMINATORS]["network_0"][name]
        hidden = jax.nn.relu(x.mean((1, 2)) @ own["hidden"]["kernel"] + own["hidden"]["bias"])
        return hidden @ own["output"]["kernel"] + own["output"]["bias"]

    def taught(maps):
        own = {"params": params["cohort"]["network_0"]["self_teacher"]}
        return models.SelfTeacher(5).apply(own, maps)

    return losses.mixskd(
        [each.logits for each in branches],
        maps,
        losses.MixedPair(*(taught(list(each)) for each in zip(*pairs, strict=True))),
        [
            losses.MixedPair(judge(name, pair.interpolated), judge(name, pair.mixed))
            for name, pair in zip(STAGES, pairs, strict=True)
        ],
        LABELS,
        mixture,
        temperature=2.0,
    ), (outputs, updated["batch_stats"])


@functools.cache
def expected():
    params, model_state = state()
    batch_stats = model_state["batch_stats"]["network_0"]
    return written_out(params, batch_stats, shown().images, mixture())


def test_images_and_labels_that_are_shown():
    """Every image beside its mixture; what is written of each is what it is made of."""
    rows = shown()
    np.testing.assert_array_equal(rows.images[:4], IMAGES)
    np.testing.assert_array_equal(rows.labels[:, 0], [*LABELS, *LABELS])
    np.testing.assert_array_equal(rows.weights[:4], [[1, 0]] * 4)
    lam, partners = rows.weights[4, 0], np.asarray(rows.labels[4:, 1])
    assert 0 < lam < 1 and sorted(partners) == sorted(LABELS)
    np.testing.assert_allclose(rows.weights[4:], [[lam, 1 - lam]] * 4, rtol=1e-6)
    np.testing.assert_allclose(
        rows.images[4:], lam * IMAGES + (1 - lam) * IMAGES[partners], atol=1e-6
    )
    assert len(rows.notes) == 0


def test_loss_is_the_sum_of_the_terms_of_what_is_shown():
    (loss, (updated, metrics)), _ = stepped()
    terms, (outputs, batch_stats) = expected()
    np.testing.assert_allclose(loss, sum(terms).mean(), rtol=1e-4)
    for name, value in terms._asdict().items():
        np.testing.assert_allclose(metrics[name], value.mean(), rtol=1e-4)
    helpers.assert_equal(updated["batch_stats"]["network_0"], batch_stats)
    scores = {"network_0": outputs.backbone.logits, "network_0/self_teacher": outputs.self_teacher}
    scores |= {f"network_0/{name}": each.logits for name, each in outputs.branches.items()}
    accuracies = {
        f"{name}/accuracy": np.mean(np.argmax(logits[:4], -1) == LABELS)
        for name, logits in scores.items()
    }
    assert set(metrics) == {*TERMS, *accuracies}
    for name, value in accuracies.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-6)


def test_everything_is_trained():
    _, gradients = stepped()
    assert set(gradients) == {"cohort", DISCRIMINATORS}
    assert set(gradients[DISCRIMINATORS]["network_0"]) == set(STAGES)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))


def script() -> methods.Method:
    """As the official script for CIFAR."""
    return make(mixed_labels=False, train_discriminators=False)


def test_loss_of_the_script_for_cifar():
    """Labels of mixed images are measured, but not learned; discriminators are constants."""
    params, model_state = frozen_state()
    loss, (updated, metrics) = jax.jit(script().loss)(params, model_state, BATCH, KEY)
    (total, (_, others)), _ = stepped()
    helpers.assert_equal(metrics, others)
    np.testing.assert_allclose(loss, total - metrics["mixed_cross_entropy"], rtol=1e-4)
    helpers.assert_equal(updated[CONSTANTS], model_state[CONSTANTS])


@pytest.mark.parametrize("mixed_labels", [False, True])
def test_weight_decay_of_self_teachers_that_do_not_learn(mixed_labels):
    """They stay as they are, though the optimizer has momentum and decays all else."""
    chain = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1, momentum=0.9))
    tx = make(mixed_labels=mixed_labels).optimizer(chain)
    network = {name: {"kernel": np.ones(2)} for name in (*STAGES, "self_teacher")}
    params = {"cohort": {"network_0": network, "network_1": network}}
    updates, _ = tx.update(jax.tree.map(np.zeros_like, params), tx.init(params), params)
    for own in updates["cohort"].values():
        moved = {name for name, leaves in own.items() if leaves["kernel"].any()}
        assert moved == {*STAGES, *(["self_teacher"] if mixed_labels else [])}


def test_init_and_predictions():
    method = make(2, train_discriminators=False)
    params, model_state = jax.eval_shape(method.init, KEY, IMAGES)
    assert set(params) == {"cohort"}
    own = model_state[CONSTANTS][DISCRIMINATORS]
    assert set(own) == {"network_0", "network_1"} and set(own["network_1"]) == set(STAGES)
    assert own["network_0"]["branch1"]["hidden"]["kernel"].shape == (8, 128)
    found = jax.eval_shape(method.predict, params, model_state, IMAGES)
    names = ("", "/branch1", "/self_teacher")
    networks = [f"network_{index}{name}" for index in range(2) for name in names]
    expected = dict.fromkeys([*networks, "ensemble"], (4, 5))
    assert {name: logits.shape for name, logits in found.items()} == expected


def test_predictions_are_logits_in_evaluation_mode():
    params, model_state = state()
    variables = {
        "params": params["cohort"]["network_0"],
        "batch_stats": model_state["batch_stats"]["network_0"],
    }

    @jax.jit
    def both(params, model_state, variables):
        outputs = network().apply(variables, IMAGES)
        logits = {name: each.logits for name, each in outputs.branches.items()}
        logits |= {"self_teacher": outputs.self_teacher}
        logits = {f"network_0/{name}": each for name, each in logits.items()}
        logits["network_0"] = outputs.backbone.logits
        return make().predict(params, model_state, IMAGES), logits

    helpers.assert_equal(*both(params, model_state, variables))


def test_discriminators_of_one_network_differ():
    """Each starts on its own, as `torch.nn.Linear` does: in +-1 / sqrt(inputs)."""
    own = jax.jit(lambda key: make().init(key, IMAGES)[0][DISCRIMINATORS]["network_0"])(KEY)
    kernels = np.stack([own[name]["hidden"]["kernel"] for name in STAGES])
    assert 0.9 * 8**-0.5 < np.abs(kernels).max() <= 8**-0.5
    assert all(np.abs(a - b).max() > 0.1 for a, b in zip(kernels, kernels[[1, 0]], strict=True))


def test_half_precision():
    half = models.self_taught(tiny(dtype=jnp.bfloat16))
    method = methods.mixskd(models.Cohort((half,)), **SETTINGS)
    params, model_state = jax.eval_shape(method.init, KEY, IMAGES)
    loss, (_, metrics) = jax.eval_shape(method.loss, params, model_state, BATCH, KEY)
    assert {each.dtype for each in (loss, *metrics.values())} == {jnp.dtype("float32")}
    discriminated = jax.eval_shape(
        Discriminator().init_with_output, KEY, jnp.zeros((2, 8), jnp.bfloat16)
    )[0]
    assert discriminated.dtype == jnp.float32


# What is refused


SLOW = ("densenet_40_12", "hcgnet_a1", "mobilenetv2", "resnet50", "shufflenetv1", "vgg16_maxpool")


@pytest.mark.parametrize(
    "name", ["resnet8", "vgg8", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_create(name):
    config = configs.base()
    config.method, config.networks = "mixskd", (name,)
    method = methods.create(config, num_classes=5, axis_name=None)
    images = np.zeros((4, 32, 32, 3), np.float32)
    params, model_state = jax.eval_shape(method.init, KEY, images)
    loss, _ = jax.eval_shape(method.loss, params, model_state, BATCH | {"image": images}, KEY)
    assert loss.shape == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixskd.alpha": 0.0}, "config.mixskd.alpha=0.0: must be positive"),
        ({"mixskd.temperature": -1.0}, "config.mixskd.temperature=-1.0: must be positive"),
        (
            {"shared_stages": 1, "networks": ("resnet8",) * 2},
            "config.shared_stages=1: networks of method 'mixskd' share nothing; set it to 0",
        ),
    ],
)
def test_create_refuses(changes, message):
    config = configs.base()
    config.method, config.networks = "mixskd", ("resnet8",)
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=message):
        methods.create(config, num_classes=5, axis_name=None)


@pytest.mark.parametrize(
    "one",
    [
        models.hsakd_branches(tiny()),
        models.self_taught(tiny(blocks=(1,), widths=(4,))),
    ],
    ids=["other branches", "one stage"],
)
def test_networks_without_branches(one):
    with pytest.raises(UserError, match="network_0 has no branches and self-teacher") as error:
        methods.mixskd(models.Cohort((one,)), **SETTINGS)
    assert "\n" not in str(error.value)


def test_maps_of_other_shapes():
    one = models.SelfTaught(tiny(), ((1, tiny(widths=(4, 6))),))
    method = methods.mixskd(models.Cohort((network(), one)), **SETTINGS)
    message = "of one shape in all branches of network_1, which has branch1 4x4x6, "
    with pytest.raises(UserError, match=message) as error:
        jax.eval_shape(method.init, KEY, IMAGES)
    assert "\n" not in str(error.value)
