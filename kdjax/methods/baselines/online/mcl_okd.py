"""Multi-view contrastive learning for online distillation: MCL-OKD (Yang et al., ICASSP 2021)."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from kdjax import losses
from kdjax.methods import base
from kdjax.methods.baselines.distillation.negatives import by_class, draw
from kdjax.methods.mcl import unsynchronized
from kdjax.methods.registry import register
from kdjax.models import Cohort, layers
from kdjax.models.outputs import outputs_of
from kdjax.numerics import accumulation_dtype, unit
from kdjax.settings import setting


@dataclasses.dataclass(frozen=True)
class MclOkd:
    """`config.mcl_okd`."""

    alpha: float = setting(
        1.0, "weight of the last network's distillation from the mean logits", at_least=0
    )
    beta: float = setting(0.025, "weight of the contrastive loss", at_least=0)
    gamma: float = setting(1.0, "weight of the cross entropies", at_least=0)
    kd_temperature: float = setting(3.0, "T of the distillation", above=0)
    temperature: float = setting(0.1, "tau of the contrastive loss", above=0)
    momentum: float = setting(0.5, "what is kept of a remembered vector", at_least=0, below=1)
    negatives: int = setting(
        256,
        "K, images of other classes per image; 16384 with VGG-16 and HCGNet-A1",
        at_least=1,
    )
    features: int = setting(128, "length of the contrasted vectors", at_least=1)


class Embedding(nn.Module):
    """`[B, D] -> [B, features]` unit vectors: linear, divided by their length."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dtype = accumulation_dtype(x.dtype)
        return unit(layers.dense(x.shape[-1], self.features, dtype=dtype, name="linear")(x))


@register(
    "mcl_okd",
    settings=MclOkd,
    family="online",
    networks=2,
    source="Yang et al., ICASSP 2021, arXiv 2006.04093, equation 11",
    paper="ResNet-32 71.09; one of four 75.48, ensemble 78.00",
)
def mcl_okd(
    cohort: Cohort,
    settings: MclOkd,
    *,
    axis_name: str | None = None,
    train_labels: np.ndarray | None = None,
) -> base.Method:
    """Cross entropy, `losses.mutual_nce` of all networks, and the mean's logits for the last one.

    Every network has a memory bank of all training images, equal on all devices. It predicts
    `network_i` and `ensemble`, the mean of all logits. The images to tell apart are drawn from the
    other classes, independently of each other.

    Args:
      cohort: two networks or more.
      settings: see `MclOkd`.
      axis_name: the mapped device axis.
      train_labels: `[images]` classes of the training split.

    Raises:
      UserError: fewer than two networks, or images of one class only.
    """
    if train_labels is None:
        raise ValueError("method 'mcl_okd' contrasts classes: give train_labels")
    names = [f"network_{index}" for index in range(len(cohort.networks))]
    embedding = Embedding(settings.features)
    others = by_class(train_labels)

    def init(key: jax.Array, images: jax.Array) -> tuple[base.Params, base.ModelState]:
        cohort_key, key = jax.random.split(key)
        params, model_state = base.init_cohort(cohort, cohort_key, images)
        run = functools.partial(base.train_outputs, unsynchronized(cohort))
        outputs, _ = jax.eval_shape(run, params, model_state, images)
        embeddings, banks = {}, {}
        for index, (name, output) in enumerate(zip(names, outputs, strict=True)):
            embedding_key, bank_key = jax.random.split(jax.random.fold_in(key, index))
            x = jnp.zeros(output.embedding.shape, jnp.float32)
            embeddings[name] = embedding.init(embedding_key, x)["params"]
            banks[name] = random_bank(bank_key, len(train_labels), settings.features)
        constants = {base.CONSTANTS: {"others": others}, base.MEMORY: banks}
        return params | {"embeddings": embeddings}, model_state | constants

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        labels, index = batch["label"], batch["index"]
        outputs, model_state = base.train_outputs(cohort, params, model_state, batch["image"])
        cross_entropy, metrics = base.classification(outputs, labels)
        logits = [output.logits for output in outputs]
        metrics["distillation"] = jnp.mean(
            losses.distill_from_mean(
                logits, temperature=settings.kd_temperature, students=[len(logits) - 1]
            )
        )
        values, banks = losses.mutual_nce(
            [
                outputs_of(embedding, {"params": params["embeddings"][name]}, output.embedding)
                for name, output in zip(names, outputs, strict=True)
            ],
            index,
            draw(
                key,
                labels,
                index,
                model_state[base.CONSTANTS]["others"],
                count=settings.negatives,
            ),
            [model_state[base.MEMORY][name] for name in names],
            temperature=settings.temperature,
            momentum=settings.momentum,
            axis_name=axis_name,
        )
        metrics["contrast"] = jnp.mean(values)
        total = settings.gamma * cross_entropy + settings.alpha * metrics["distillation"]
        total += settings.beta * metrics["contrast"]
        remembered = {base.MEMORY: dict(zip(names, banks, strict=True))}
        return total, (model_state | remembered, metrics)

    return base.cohort_method(cohort, loss, init=init)


def random_bank(key: jax.Array, images: int, features: int) -> jax.Array:
    """`[images, features]` uniform numbers, rows of a length of about 1: how a memory starts."""
    bound = (3 / features) ** 0.5
    return jax.random.uniform(key, (images, features), jnp.float32, -bound, bound)
