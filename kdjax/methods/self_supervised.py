"""Self-supervised mutual contrastive learning, on MoCo and on SimCLR.

The networks see two views of every image and no label. Classifiers are not trained; what a network
knows is told by the nearest neighbors of its embeddings (`kdjax.training.neighbors`).

BatchNorm's statistics are those of the global batch. MoCo shuffles the images between devices
instead, because with a device's own statistics the two views of an image tell each other by what
they were normalized with. Both take that way out; of the two, only common statistics make any
number of devices compute the same, and a single device, where a shuffle does nothing, no exception.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from kdjax import losses
from kdjax.errors import UserError
from kdjax.methods import base
from kdjax.methods.mcl import ProjectionHead, init_with_heads, projected, weighted
from kdjax.methods.registry import DataNeed, register
from kdjax.models import Cohort
from kdjax.numerics import unit
from kdjax.settings import setting


@dataclasses.dataclass(frozen=True)
class SelfSupervised:
    """What MoCo and SimCLR have in common."""

    alpha: float = setting(1.0, "weight of the vanilla contrastive loss (VCL)", at_least=0)
    beta: float = setting(1.0, "weight of the interactive contrastive loss (ICL)", at_least=0)
    gamma: float = setting(1.0, "weight of soft VCL", at_least=0)
    lam: float = setting(1.0, "weight of soft ICL (lambda)", at_least=0)
    temperature: float = setting(0.1, "tau of the contrastive distributions", above=0)
    kd_temperature: float = setting(3.0, "T of the soft terms (official code)", above=0)
    projection_features: int = setting(128, "length of the contrasted vectors", at_least=1)
    projection_layers: int = setting(2, "of the projection head; 1: linear", at_least=1, at_most=2)


@dataclasses.dataclass(frozen=True)
class Moco(SelfSupervised):
    """`config.moco`."""

    temperature: float = setting(0.07, "tau of the contrastive distributions", above=0)
    projection_layers: int = setting(
        1, "of the projection head; 1: linear, as in MoCo v1; 2: as in v2", at_least=1, at_most=2
    )
    queue: int = setting(65536, "earlier keys that are remembered of each network", at_least=1)
    momentum: float = setting(
        0.999, "what momentum encoders keep of themselves in a step", at_least=0, at_most=1
    )


def _check_batch_norm(config: ConfigDict) -> None:
    if not config.sync_batch_norm:
        raise UserError(
            f"method {config.method!r}: with each device's own BatchNorm statistics the views of "
            "an image tell each other by them; set config.sync_batch_norm to True"
        )


def _check_moco(config: ConfigDict) -> None:
    _check_batch_norm(config)
    images = config.batch_size * (1 + config.data.partners)
    if images > config.moco.queue:
        raise UserError(
            f"config.moco.queue={config.moco.queue} does not hold the keys of a batch of {images} "
            "images; set it to that or more"
        )


VIEWS = {"views": DataNeed(2, 2, reason="contrasts two views of an image")}


@register(
    "moco",
    settings=Moco,
    family="moco_mcl",
    data=VIEWS,
    check_config=_check_moco,
    source="He et al., CVPR 2020, arXiv 1911.05722; Yang et al., AAAI 2022, arXiv 2104.12565",
    paper="ImageNet, linear, ResNet-18 47.45; two 48.04",
)
def moco(cohort: Cohort, settings: Moco, *, axis_name: str | None = None) -> base.Method:
    """MoCo of one network, and MCL on MoCo of several: `losses.queue_contrast`.

    Every network has a momentum encoder, which sees the second view, and a queue of its earlier
    keys. In a step momentum encoders first move towards the networks, then make keys, and the keys
    enter the queues when the losses are computed. At the first step momentum encoders are the
    networks themselves. Encoders and queues are part of the method's state and of checkpoints, and
    equal on all devices.

    Args:
      cohort: one network or more.
      settings: see `Moco`.
      axis_name: the mapped device axis.
    """
    head = ProjectionHead(settings.projection_features, settings.projection_layers)
    names = [f"network_{i}" for i in range(len(cohort.networks))]

    def init(key: jax.Array, images: jax.Array) -> tuple[base.Params, base.ModelState]:
        key, queue_key = jax.random.split(key)
        params, model_state = init_with_heads(cohort, head, key, images)
        shape = (len(names), settings.queue, settings.projection_features)
        rows = unit(jax.random.normal(queue_key, shape, jnp.float32))
        memory = {
            "encoders": params,
            "queues": dict(zip(names, rows, strict=True)),
            "pointer": jnp.zeros((), jnp.int32),
        }
        return params, model_state | {base.MEMORY: memory}

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        del key
        memory, views = model_state[base.MEMORY], batch["views"]
        momentum = jnp.where(batch["step"] == 0, 0.0, settings.momentum)
        encoders = losses.momentum_update(memory["encoders"], params, momentum)
        outputs, model_state = base.train_outputs(cohort, params, model_state, views[:, 0])
        queries = projected(head, params, outputs)
        # Momentum encoders normalize by the batch: they need no running statistics.
        outputs, _ = base.train_outputs(cohort, encoders, model_state, views[:, 1])
        keys = projected(head, encoders, outputs)
        terms = losses.queue_contrast(
            queries,
            keys,
            [memory["queues"][name] for name in names],
            temperature=settings.temperature,
            kd_temperature=settings.kd_temperature,
        )
        total, metrics = weighted(terms, settings)
        queues = {
            name: losses.enqueue(
                memory["queues"][name], key, memory["pointer"], axis_name=axis_name
            )
            for name, key in zip(names, keys, strict=True)
        }
        entered = len(views) * (1 if axis_name is None else jax.lax.psum(1, axis_name))
        pointer = (memory["pointer"] + entered) % settings.queue
        memory = {"encoders": encoders, "queues": queues, "pointer": pointer}
        return total, (model_state | {base.MEMORY: memory}, metrics)

    return _method(cohort, loss, init)


@dataclasses.dataclass(frozen=True)
class Simclr(SelfSupervised):
    """`config.simclr`."""


@register(
    "simclr",
    settings=Simclr,
    family="simclr_mcl",
    data=VIEWS,
    check_config=_check_batch_norm,
    source="Chen et al., ICML 2020, arXiv 2002.05709; Yang et al., AAAI 2022, arXiv 2104.12565",
)
def simclr(cohort: Cohort, settings: Simclr, *, axis_name: str | None = None) -> base.Method:
    """SimCLR of one network, and MCL on it of several: `losses.mutual_contrast` of images.

    All views of the global batch are one another's contrast, and those of an image its positives.
    VCL is then NT-Xent of each network, and ICL compares the views as different networks see them.

    Args:
      cohort: one network or more.
      settings: see `Simclr`.
      axis_name: the mapped device axis.
    """
    head = ProjectionHead(settings.projection_features, settings.projection_layers)

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        del key
        views = batch["views"]
        images = views.reshape(-1, *views.shape[2:])
        outputs, model_state = base.train_outputs(cohort, params, model_state, images)
        terms = losses.mutual_contrast(
            projected(head, params, outputs),
            jnp.repeat(batch["index"], views.shape[1]),
            temperature=settings.temperature,
            kd_temperature=settings.kd_temperature,
            axis_name=axis_name,
        )
        total, metrics = weighted(terms, settings)
        return total, (model_state, metrics)

    return _method(cohort, loss, functools.partial(init_with_heads, cohort, head))


def _inputs(batch: base.Batch, key: jax.Array) -> base.Inputs:
    """All views of the images of a batch; labels, which nothing learns from, are for people."""
    del key
    views = batch["views"]
    images = views.reshape(-1, *views.shape[2:])
    labels = jnp.repeat(batch["label"], views.shape[1])[:, None]
    notes = [f"view {view}" for _ in range(len(views)) for view in range(views.shape[1])]
    return base.Inputs(images, labels, jnp.ones(labels.shape, jnp.float32), notes)


def _method(cohort: Cohort, loss: base.Loss, init: base.Init) -> base.Method:
    embeddings = functools.partial(base.cohort_embeddings, cohort)
    return base.cohort_method(
        cohort, loss, init=init, predict=None, inputs=_inputs, embeddings=embeddings
    )
