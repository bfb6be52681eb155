"""What several tests of networks need."""

from __future__ import annotations

import flax.linen as nn
import jax
import numpy as np

from kdjax import models

IMAGES = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)


def tiny(family: str = "resnet", num_classes: int = 5, **fields) -> nn.Module:
    """A network of three stages that compiles fast."""
    if family == "wrn":
        return models.WideResNet(num_classes=num_classes, depth=10, **fields)
    fields = {"blocks": (1, 1, 1), "widths": (4, 8, 8), "stem_width": 4} | fields
    return models.CifarResNet(num_classes=num_classes, **fields)


def random_variables(module: nn.Module, images=IMAGES) -> dict:
    """Variables of `module`, made by numpy: compiling JAX's random numbers takes seconds."""
    random = np.random.default_rng(0)

    def fill(path, leaf):
        values = random.normal(size=leaf.shape)
        if path[-1].key == "kernel":
            values *= np.sqrt(2 / np.prod(leaf.shape[:-1]))
        elif path[-1].key in ("scale", "var"):
            values = 1 + 0.1 * np.abs(values)
        else:
            values *= 0.1
        return values.astype(leaf.dtype)

    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    return jax.tree_util.tree_map_with_path(fill, shapes)


def assert_equal(actual, expected) -> None:
    """Equal trees up to rounding, in which two compiled programs may differ."""

    def compare(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)

    jax.tree.map(compare, actual, expected)
