"""Label smoothing: the cross entropy, methods that have one, and those that have none."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import config as configs
from kdjax import losses, methods
from kdjax.errors import UserError
from kdjax.losses.smoothing import smoothed_labels
from tests.tiny_runs import networks  # noqa: F401

LOGITS = jnp.asarray(np.random.default_rng(0).normal(size=(6, 5)), jnp.float32)
LABELS = jnp.asarray([0, 1, 2, 3, 4, 0])


def test_smoothing_is_the_cross_entropy_with_smoothed_targets():
    targets = 0.9 * jax.nn.one_hot(LABELS, 5) + 0.1 / 5
    expected = losses.cross_entropy(LOGITS, targets)
    plain = losses.cross_entropy(LOGITS, LABELS)
    with smoothed_labels(0.1) as smoothing:
        np.testing.assert_allclose(losses.cross_entropy(LOGITS, LABELS), expected, rtol=1e-6)
        assert smoothing.uses == 1
        np.testing.assert_array_equal(losses.cross_entropy(LOGITS, targets), expected)
        assert smoothing.uses == 1  # probabilities stay as they are
    np.testing.assert_array_equal(losses.cross_entropy(LOGITS, LABELS), plain)


def test_excluded_classes_have_no_part():
    excluded = LOGITS.at[:, 4].set(-jnp.inf)[:4]
    with smoothed_labels(0.2):
        values = losses.cross_entropy(excluded, LABELS[:4])
        np.testing.assert_allclose(
            values, losses.cross_entropy(LOGITS[:4, :4], LABELS[:4]), rtol=1e-6
        )
        gradient = jax.grad(lambda x: losses.cross_entropy(x, LABELS[:4]).sum())(excluded)
    assert np.isfinite(gradient).all()


def loss_of(method, **options):
    config = configs.base()
    methods.registry.use(config, method)
    config.networks = ("tiny", "tiny")
    config.update(options)
    made = methods.create(config, num_classes=5, axis_name=None)
    images = jax.random.normal(jax.random.key(0), (6, 8, 8, 3))
    batch = {"image": images, "label": LABELS, "index": LABELS, "step": jnp.int32(0)}
    batch["views"] = jnp.stack([images, images], axis=1)

    def loss(key):
        params, model_state = made.init(key, images)
        return made.loss(params, model_state, batch, key)[0]

    return loss


@pytest.mark.slow
def test_a_method_smooths_its_cross_entropies():
    plain, smooth = (loss_of("dml", smooth_labels=a)(jax.random.key(1)) for a in (0.0, 0.1))
    assert abs(plain - smooth) > 1e-3


def test_a_method_without_labels_is_refused():
    with pytest.raises(UserError, match=r"smooth_labels=0.1: the loss of method 'simclr' has no"):
        jax.eval_shape(loss_of("simclr", smooth_labels=0.1), jax.random.key(1))
