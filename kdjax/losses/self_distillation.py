"""Self-distillation between views, between images of a class or a batch, and from the past.

Each loss is its paper's; `form='library'` is that of Self-KD-Lib (winycg/Self-KD-Lib), where it
differs.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdjax.losses.classes import one_hot
from kdjax.losses.distillation import cross_entropy, kd
from kdjax.losses.forms import is_paper
from kdjax.numerics import at_least_float32


class CsKd(NamedTuple):
    """The terms of CS-KD, each `[B]`."""

    cross_entropy: jax.Array
    distillation: jax.Array


class Ddgsd(NamedTuple):
    """The terms of DDGSD, each `[B]`.

    Attributes:
      cross_entropy: of the labels, of both views.
      distillation: `T^2 KL` of each view from the other.
      discrepancy: between the views' features; a number of the whole batch, the same in every row.
    """

    cross_entropy: jax.Array
    distillation: jax.Array
    discrepancy: jax.Array


def cs_kd(
    logits: jax.Array, partner_logits: jax.Array, labels: jax.Array, *, temperature: float
) -> CsKd:
    """Class-wise self-distillation (CS-KD): an image learns from another one of its class.

    `CE(p(x), y)` and `T^2 KL(sg p_T(x') || p_T(x))`; the loss is the sum of both.

    Source: Yun et al., CVPR 2020, arXiv 2003.13964, section 2; checked against methods/cs_kd.py of
    Self-KD-Lib.

    Args:
      logits: `[B, N]` of the images x.
      partner_logits: `[B, K, N]` of K partners x' of each image, over which the mean is taken;
        constants. Paper: K = 1.
      labels: `[B]` integer classes.
      temperature: T > 0. Paper: 1 or 4.

    Returns:
      `cross_entropy` and `distillation`, `[B]` each, in nats.

    Raises:
      ValueError: shapes that do not fit together.

    >>> logits = jnp.array([[2.0, 0.0]])
    >>> terms = cs_kd(logits, jnp.array([[[0.0, 0.0]]]), jnp.array([0]), temperature=4.0)
    >>> print(terms.cross_entropy, terms.distillation)
    [0.126...] [0.494...]
    """
    size, classes = jnp.shape(partner_logits)[1:2], jnp.shape(logits)[1:]
    if jnp.shape(partner_logits) != (*jnp.shape(logits)[:1], *size, *classes):
        raise ValueError(
            f"logits {jnp.shape(logits)} need partner_logits of shape [B, K, N], got "
            f"{jnp.shape(partner_logits)}"
        )
    student = jnp.broadcast_to(jnp.expand_dims(logits, 1), jnp.shape(partner_logits))
    divergence = kd(student, partner_logits, temperature=temperature)
    return CsKd(cross_entropy(logits, labels), divergence.mean(axis=1))


def ddgsd(
    logits: jax.Array,
    embeddings: jax.Array,
    labels: jax.Array,
    *,
    temperature: float,
    form: str = "paper",
    axis_name: str | None = None,
) -> Ddgsd:
    """Data-distortion guided self-distillation (DDGSD) between two views of every image.

    Cross entropy of both views; each view's divergence from the other, which is a constant; and the
    maximum mean discrepancy of the views' features, `|mean_b f_1(b) - mean_b f_2(b)|^2`.

    Source: Xu and Liu, AAAI 2019, doi 10.1609/aaai.v33i01.33015565. From the paper are the terms:
    cross entropy of both views, divergences both ways, and the discrepancy of global features with
    a weight of 1e-4 to 5e-4. Inferred, for want of the authors' code, are the plain sum of the two
    cross entropies, the linear kernel of the discrepancy, and that divergences have a temperature
    and do not reach who is learned from. The library's form is checked against methods/ddsgd.py of
    Self-KD-Lib.

    Args:
      logits: `[B, 2, N]`.
      embeddings: `[B, 2, D]`.
      labels: `[B]` integer classes.
      temperature: T > 0.
      form: 'paper', or 'library': a quarter of the two cross entropies (their mean, halved), and
        the squared difference of two numbers, the means of the views' features over images and
        channels.
      axis_name: name of the mapped device axis. With it, means of features are over the images of
        all devices. None means one device.

    Returns:
      `cross_entropy`, `distillation` and `discrepancy`, `[B]` each.

    Raises:
      ValueError: unknown form, or labels of another shape.
    """
    paper = is_paper(form)
    if jnp.ndim(logits) != 3 or logits.shape[1] != 2 or embeddings.shape[:2] != logits.shape[:2]:
        raise ValueError(
            "DDGSD needs logits [B, 2, N] and embeddings [B, 2, D] of two views, got "
            f"{jnp.shape(logits)} and {jnp.shape(embeddings)}"
        )
    first, second = logits[:, 0], logits[:, 1]
    classified = cross_entropy(first, labels) + cross_entropy(second, labels)
    divergence = kd(first, second, temperature=temperature)
    divergence += kd(second, first, temperature=temperature)
    means = at_least_float32(embeddings).mean(axis=0)
    if axis_name is not None:
        means = jax.lax.pmean(means, axis_name)
    difference = means[0] - means[1]
    discrepancy = jnp.sum(jnp.square(difference)) if paper else jnp.square(difference.mean())
    return Ddgsd(
        classified if paper else classified / 4,
        divergence,
        jnp.broadcast_to(discrepancy, classified.shape),
    )


def ps_kd(
    logits: jax.Array, labels: jax.Array, past: jax.Array, *, alpha: float | jax.Array
) -> jax.Array:
    """Progressive self-distillation (PS-KD): labels softened by what was predicted an epoch ago.

    The cross entropy of `(1 - alpha) one_hot + alpha past`.

    Source: Kim et al., ICCV 2021, arXiv 2006.12000, section 3, where alpha grows in proportion to
    the epoch; checked against methods/ps_kd.py of Self-KD-Lib.

    Args:
      logits: `[..., N]`.
      labels: `[...]` integer classes.
      past: `[..., N]` probabilities, constants.
      alpha: from 0 to 1.

    Returns:
      `[...]`, in nats.

    Raises:
      ValueError: labels or probabilities of another shape.
    """
    if jnp.shape(past) != jnp.shape(logits):
        raise ValueError(
            f"past predictions {jnp.shape(past)} are not of the logits' shape {jnp.shape(logits)}"
        )
    true = one_hot(labels, logits)
    return cross_entropy(logits, (1 - alpha) * true + alpha * jax.lax.stop_gradient(past))
