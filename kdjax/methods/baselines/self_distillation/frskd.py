"""FRSKD (Ji et al., CVPR 2021, arXiv 2103.08273): a feature pyramid teaches its own network."""

from __future__ import annotations

import dataclasses
import functools

import jax

from kdjax import losses, models
from kdjax.methods import base
from kdjax.methods.baselines.self_distillation.auxiliary_heads import method_with_heads
from kdjax.methods.baselines.self_distillation.form import form
from kdjax.methods.registry import register
from kdjax.settings import setting


@dataclasses.dataclass(frozen=True)
class Frskd:
    """`config.frskd`."""

    temperature: float = setting(4.0, "T of `losses.frskd`", above=0)
    kd_weight: float = setting(2.0, "of the divergence from the pyramid", at_least=0)
    attention_weight: float = setting(100.0, "of attention transfer from the pyramid", at_least=0)
    width: int = setting(2, "of `models.BiFPN`, over the network's", at_least=1)
    depth: int = setting(2, "of `models.BiFPN`, in layers", at_least=1)
    form: str = form()


@register(
    "frskd",
    settings=Frskd,
    family="self_distill",
    source="Ji et al., CVPR 2021, arXiv 2103.08273",
    paper="ResNet-18 76.60 (Self-KD-Lib)",
)
def frskd(cohort: models.Cohort, settings: Frskd) -> base.Method:
    """Every network learns from a feature pyramid over its own maps, a self-teacher.

    Args:
      cohort: networks whose maps halve from stage to stage; they get a `models.Pyramid`.
      settings: see `Frskd`.

    Raises:
      UserError: shared stages; at the first call, maps that do not halve.
    """

    def terms(outputs: models.PyramidOutputs, labels: jax.Array) -> losses.Frskd:
        return losses.frskd(
            outputs.backbone.logits,
            outputs.logits,
            outputs.backbone.features,
            outputs.features,
            labels,
            temperature=settings.temperature,
            form=settings.form,
        )

    pyramid = functools.partial(models.Pyramid, width=settings.width, depth=settings.depth)
    weights = {"distillation": settings.kd_weight, "attention": settings.attention_weight}
    return method_with_heads(cohort, "frskd", pyramid, terms, weights, variables=_without_pyramid)


def _without_pyramid(
    params: base.Params, model_state: base.ModelState, index: int
) -> base.Variables:
    variables = base.network_variables(params, model_state, index)
    return {name: tree["backbone"] for name, tree in variables.items()}
