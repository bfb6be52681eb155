"""Resizing, cross entropy and measures of segmentation against PyTorch and their definitions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import segmentation
from tests import golden, golden_transfer


@pytest.mark.parametrize("name", ["up", "corners", "down", "one"])
def test_bilinear(name):
    hyper, arrays = golden_transfer.case(f"seg_bilinear_{name}")
    height, width = hyper["size"]

    def probe(x):
        y = segmentation.bilinear(x, height, width, align_corners=hyper["align_corners"])
        return jnp.sum(y * arrays["in_w"]), y

    with jax.enable_x64(True):
        gradient, y = jax.grad(probe, has_aux=True)(jnp.asarray(arrays["in_x"]))
        golden.compare(y, arrays["out_y"], np.float64)
        golden.compare(gradient, arrays["grad_x"], np.float64)


def test_bilinear_computes_in_float32_at_least_and_keeps_maps_of_the_same_size():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, 4, 2)), jnp.bfloat16)
    for align_corners in (False, True):
        y = segmentation.bilinear(x, 3, 4, align_corners=align_corners)
        assert y.dtype == jnp.float32
        np.testing.assert_array_equal(y, np.asarray(x, np.float32))


@pytest.mark.parametrize("name", ["255", "minus1"])
def test_cross_entropy(name):
    hyper, arrays = golden_transfer.case(f"seg_cross_entropy_{name}")
    labels, ignored = jnp.asarray(arrays["in_labels"]), hyper["ignore_index"]

    def loss(logits, class_weights):
        weights = segmentation.pixel_weights(labels, ignored=ignored, class_weights=class_weights)
        values = segmentation.pixel_cross_entropy(logits, labels, ignored=ignored)
        return segmentation.weighted_mean(values, weights)

    with jax.enable_x64(True):
        for suffix, prefix, weights in (
            ("", "", ()),
            ("_weighted", "weighted_", arrays["in_class_weight"]),
        ):
            value, gradient = jax.value_and_grad(loss)(jnp.asarray(arrays["in_logits"]), weights)
            golden.compare(value, arrays[f"out_{prefix}loss"], np.float64)
            golden.compare(gradient, arrays[f"grad_logits{suffix}"], np.float64)


def test_a_batch_without_a_pixel_that_counts_has_no_loss_and_no_gradient():
    labels = jnp.full((1, 2, 2), segmentation.IGNORED)

    def loss(logits):
        values = segmentation.pixel_cross_entropy(logits, labels)
        return segmentation.weighted_mean(values, segmentation.pixel_weights(labels))

    value, gradient = jax.value_and_grad(loss)(jnp.full((1, 2, 2, 3), 1e4))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def test_the_mean_over_devices_is_that_of_all_pixels():
    random = np.random.default_rng(0)
    logits = jnp.asarray(random.normal(size=(4, 2, 3, 3, 5)), jnp.float32)
    labels = jnp.asarray(random.integers(0, 5, (4, 2, 3, 3)))
    labels = labels.at[1].set(segmentation.IGNORED)  # a device without any

    def means(logits, labels, axis_name=None):
        values = segmentation.pixel_cross_entropy(logits, labels)
        weights = [segmentation.pixel_weights(labels, class_weights=w) for w in ((), range(5))]
        pairs = [(values, weights[0]), (values, weights[1]), (logits[..., 0], weights[0])]
        return jnp.stack(segmentation.weighted_means(pairs, axis_name=axis_name))

    apart = jax.vmap(lambda *x: means(*x, axis_name="batch"), axis_name="batch")(logits, labels)
    whole = means(logits.reshape(8, 3, 3, 5), labels.reshape(8, 3, 3))
    np.testing.assert_allclose(apart.mean(0), whole, rtol=1e-5)
    counted = labels != segmentation.IGNORED
    np.testing.assert_allclose(whole[2], logits[..., 0][counted].mean(), rtol=1e-5)


def test_confusion_and_what_is_read_from_it():
    hyper, arrays = golden_transfer.case("seg_confusion")
    predictions, labels = jnp.asarray(arrays["in_predictions"]), jnp.asarray(arrays["in_labels"])
    matrix = segmentation.confusion(predictions, labels, hyper["classes"])
    np.testing.assert_array_equal(matrix, arrays["out_confusion"])
    parts = [
        segmentation.confusion(predictions[i], labels[i], hyper["classes"])
        for i in range(len(labels))
    ]
    np.testing.assert_array_equal(sum(parts), matrix)
    for name, value in {
        "iou": segmentation.intersection_over_union(matrix),
        "class_accuracy": segmentation.class_accuracies(matrix),
        "pixel_accuracy": segmentation.pixel_accuracy(matrix),
        "miou": segmentation.mean_iou(matrix),
        "miou_all": segmentation.mean_iou(matrix, absent_as_zero=True),
    }.items():
        np.testing.assert_allclose(value, arrays[f"out_{name}"], rtol=1e-9)
    assert np.isnan(arrays["out_iou"]).any()


def test_measures_without_any_pixel_are_zero():
    empty = np.zeros((3, 3), int)
    assert segmentation.mean_iou(empty) == segmentation.pixel_accuracy(empty) == 0
    assert np.isnan(segmentation.intersection_over_union(empty)).all()
