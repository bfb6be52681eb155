"""BYOT (Zhang et al., ICCV 2019, arXiv 1905.08094): a network teaches its branches."""

from __future__ import annotations

import dataclasses

import jax

from kdjax import losses, models
from kdjax.errors import UserError
from kdjax.methods import base
from kdjax.methods.baselines.self_distillation.auxiliary_heads import method_with_heads
from kdjax.methods.registry import register
from kdjax.models.self_teacher import last_map
from kdjax.settings import setting


@dataclasses.dataclass(frozen=True)
class Byot:
    """`config.byot`."""

    temperature: float = setting(4.0, "T of `losses.byot`", above=0)
    feature_weight: float = setting(0.05, "of the mean squares between maps", at_least=0)


@register(
    "byot",
    settings=Byot,
    family="self_distill",
    source="Zhang et al., ICCV 2019, arXiv 1905.08094",
    paper="ResNet-18 77.88 (Self-KD-Lib)",
)
def byot(cohort: models.Cohort, settings: Byot) -> base.Method:
    """Every network teaches two branches: labels, its logits and its last map.

    Args:
      cohort: networks without branches; they get those of `models.byot_branches`.
      settings: see `Byot`.

    Raises:
      UserError: networks of two stages, without blocks, or with shared stages; at the first call,
        branches whose last map has another shape than the network's.
    """

    def terms(outputs: models.BranchedOutputs, labels: jax.Array) -> losses.Byot:
        classifiers = (outputs.backbone, *outputs.branches.values())
        maps = [last_map(classifier) for classifier in classifiers]
        _check_shapes([x.shape for x in maps])
        logits = [classifier.logits for classifier in classifiers]
        return losses.byot(logits, maps, labels, temperature=settings.temperature)

    weights = {"features": settings.feature_weight}
    form = models.Form("byot")
    return method_with_heads(cohort, "byot", models.byot_branches, terms, weights, form=form)


def _check_shapes(shapes: list[tuple[int, ...]]) -> None:
    if len(set(shapes)) > 1:
        shapes_text = ", ".join("x".join(map(str, shape[1:])) for shape in shapes)
        raise UserError(
            f"method 'byot' compares last maps, which are {shapes_text} in the network and its "
            "branches; name a network in config.networks whose widths do not depend on the number "
            "of blocks, such as a ResNet"
        )
