"""DKS (Sun et al., ICCV 2019, arXiv 1906.00675): branches and network teach each other."""

from __future__ import annotations

import dataclasses

import jax

from kdjax import losses, models
from kdjax.methods import base
from kdjax.methods.baselines.self_distillation.auxiliary_heads import method_with_heads
from kdjax.methods.registry import register
from kdjax.settings import setting


@dataclasses.dataclass(frozen=True)
class Dks:
    """`config.dks`."""

    temperature: float = setting(4.0, "T of `losses.dks`", above=0)


@register(
    "dks",
    settings=Dks,
    family="self_distill",
    source="Sun et al., ICCV 2019, arXiv 1906.00675",
    paper="ResNet-18 78.64 (Self-KD-Lib)",
)
def dks(cohort: models.Cohort, settings: Dks) -> base.Method:
    """Every network learns with two branches, each from the labels and from the other two.

    Args:
      cohort: networks without branches; they get those of `models.dks_branches`.
      settings: see `Dks`.

    Raises:
      UserError: networks of two stages, without blocks, or with shared stages.
    """

    def terms(outputs: models.BranchedOutputs, labels: jax.Array) -> losses.Dks:
        classifiers = (outputs.backbone, *outputs.branches.values())
        logits = [classifier.logits for classifier in classifiers]
        return losses.dks(logits, labels, temperature=settings.temperature)

    return method_with_heads(cohort, "dks", models.dks_branches, terms, {}, form=models.Form("dks"))
