"""Self-distillation of attention maps within a network: SAD and FRSKD."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdjax.losses.distillation import cross_entropy, kd
from kdjax.losses.feature_maps import Maps, example_mean
from kdjax.losses.features import attention_transfer
from kdjax.losses.forms import is_paper
from kdjax.numerics import at_least_float32, flattened, total


def sad(features: Sequence[jax.Array]) -> jax.Array:
    """Self attention distillation (SAD): every stage attends to where the next one does.

    `sum_i mean (A(f_i) - A(up f_{i+1}))^2` over positions, where up brings the next stage's map to
    the stage's resolution, bilinearly, and A is the softmax over positions of the channels'
    mean square. The next stage is a constant. Self-KD-Lib's weight is 1000.

    Source: Hou et al., ICCV 2019, arXiv 1908.00821, section 3; checked against methods/sad.py of
    Self-KD-Lib.

    Args:
      features: maps `[B, H, W, C]` of two stages or more, the first stage first.

    Returns:
      `[B]`, summed over stages.

    Raises:
      ValueError: there are fewer than two maps.
    """
    if len(features) < 2:
        raise ValueError(f"SAD needs maps of at least two stages, got {len(features)}")
    terms = []
    for stage, following in itertools.pairwise(map(at_least_float32, features)):
        shape = (*stage.shape[:3], following.shape[-1])
        constant = jax.lax.stop_gradient(following)
        enlarged = jax.image.resize(constant, shape, "bilinear", antialias=False)
        terms.append(example_mean(jnp.square(_attention(stage) - _attention(enlarged))))
    return total(terms)


def _attention(x: jax.Array) -> jax.Array:
    """`[B, H, W, C] -> [B, H * W]`, which sum to 1."""
    return jax.nn.softmax(flattened(jnp.square(x).mean(-1)), axis=-1)


class Frskd(NamedTuple):
    """The terms of FRSKD, `[B]` each.

    Attributes:
      cross_entropy: of the labels, of the network and of its self-teacher.
      distillation: `T^2 KL` of the network from the self-teacher.
      attention: attention transfer from the self-teacher's maps to the network's.
    """

    cross_entropy: jax.Array
    distillation: jax.Array
    attention: jax.Array


def frskd(
    logits: jax.Array,
    teacher_logits: jax.Array,
    features: Maps,
    teacher_features: Maps,
    labels: jax.Array,
    *,
    temperature: float,
    form: str = "paper",
) -> Frskd:
    """Feature refinement (FRSKD): a network learns from a feature pyramid over its maps.

    The weights for ResNet-18 on CIFAR-100 are 1, 2 and 100.

    Source: Ji et al., CVPR 2021, arXiv 2103.08273, section 3; checked against methods/frskd.py of
    Self-KD-Lib, and read beside the authors' code.

    Args:
      logits: `[B, N]` of the network.
      teacher_logits: `[B, N]` of the self-teacher, the pyramid.
      features: the network's maps `[B, H, W, C]`, by position or name.
      teacher_features: the pyramid's maps `[B, H, W, C]` of the same stages. Numbers of channels
        may differ.
      labels: `[B]` integer classes.
      temperature: T > 0.
      form: 'paper': the self-teacher learns from labels only, and maps are compared behind a ReLU,
        as in the authors' code. 'library': Self-KD-Lib's, where the divergence reaches the
        self-teacher too, and maps are compared as they are given.

    Returns:
      `cross_entropy`, `distillation` and `attention`, `[B]` each.

    Raises:
      ValueError: unknown form, maps that do not pair up, or logits or labels of other shapes.
    """
    paper = is_paper(form)
    if paper:
        features, teacher_features = jax.tree.map(jax.nn.relu, (features, teacher_features))
    return Frskd(
        cross_entropy(logits, labels) + cross_entropy(teacher_logits, labels),
        kd(logits, teacher_logits, temperature=temperature, stop_teacher=paper),
        attention_transfer(features, teacher_features),
    )
