"""A small network of every family, with all kinds of blocks, and random variables for it."""

from __future__ import annotations

import flax.linen as nn
import jax
import numpy as np

from kdjax import models

_CLASSES = {"num_classes": 5}
_RESNET = {"blocks": (2, 1), "widths": (8, 12), "stem_width": 8, **_CLASSES}
_VGG = {"convs": (1, 1, 2, 1, 1), "widths": (4, 6, 6, 8, 8), **_CLASSES}

FAMILIES: dict[str, models.StagedNetwork] = {
    "resnet": models.CifarResNet(**_RESNET),
    "resnet, padding": models.CifarResNet(shortcut="padding", **_RESNET),
    "resnet, centered padding": models.CifarResNet(shortcut="centered_padding", **_RESNET),
    "resnet, wider than its stem": models.CifarResNet(
        shortcut="convolution", stem_relu=False, **_RESNET | {"stem_width": 6}
    ),
    "resnet, wider than its stem, padding": models.CifarResNet(
        shortcut="padding", **_RESNET | {"stem_width": 6}
    ),
    "resnet, pre-activation": models.CifarResNet(
        block="preactivation", shortcut="convolution", extra_stages=1, **_RESNET
    ),
    "resnet, bottleneck": models.ImageNetResNet(block="bottleneck", **_RESNET),
    "wide resnet": models.WideResNet(depth=10, **_CLASSES),
    "wide resnet, wider than its stem": models.WideResNet(depth=10, widen_factor=2, **_CLASSES),
    "vgg": models.VGG(extra_stages=1, **_VGG),
    "vgg, max pooling": models.MaxPoolVGG(**_VGG),
    "mobilenet v2": models.MobileNetV2(width=0.25, expansion=2, extra_stages=1, **_CLASSES),
    "mobilenet v2, imagenet": models.ImageNetMobileNetV2(width=0.5, expansion=2, **_CLASSES),
    "shufflenet v1": models.ShuffleNetV1(blocks=(2, 1), widths=(60, 120), **_CLASSES),
    "shufflenet v2": models.ShuffleNetV2(
        blocks=(2, 1), widths=(16, 24), final_width=16, **_CLASSES
    ),
    "shufflenet v2, imagenet": models.ImageNetShuffleNetV2(
        blocks=(1, 2), widths=(24, 16), final_width=16, **_CLASSES
    ),
    "densenet": models.DenseNet(blocks=(2, 2), growth=4, **_CLASSES),
    "hcgnet": models.HCGNet(blocks=(2, 1), growth=(8, 12), **_CLASSES),
}


def shapes_of(module: nn.Module, images_shape=(2, 32, 32, 3)) -> dict:
    """The variables of a network, without values."""
    images = jax.ShapeDtypeStruct(images_shape, np.float32)
    return jax.eval_shape(module.init, jax.random.key(0), images)


def random_variables(module: nn.Module, seed: int = 0, dtype=np.float64) -> dict:
    """Weights and all of BatchNorm, scales, biases and statistics, none of them near its start."""
    random = np.random.default_rng(seed)

    def fill(path, leaf):
        values = random.normal(size=leaf.shape)
        if path[-1].key == "kernel":
            values *= np.sqrt(2 / np.prod(leaf.shape[:-1]))
        elif path[-1].key in ("scale", "var"):
            values = 0.5 + np.abs(values)
        else:
            values *= 0.5
        return values.astype(dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes_of(module))
