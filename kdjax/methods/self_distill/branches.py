"""DKS and BYOT: networks with two branches that learn with them."""

import jax

from kdjax import losses, models
from kdjax.errors import UserError
from kdjax.methods import base
from kdjax.methods.self_distill.heads import method_with_heads
from kdjax.methods.self_distill.settings import check_temperature
from kdjax.models.self_teacher import last_map


def dks(cohort: models.Cohort, *, temperature: float) -> base.Method:
    """Every network learns with two branches, each from the labels and from the other two.

    Args:
      cohort: networks without branches; they get those of `models.dks_branches`.
      temperature: T > 0 of `losses.dks`.

    Raises:
      UserError: networks of two stages, without blocks, or with shared stages; a temperature that
        is not positive.
    """
    check_temperature("dks", temperature)

    def terms(outputs: models.BranchedOutputs, labels: jax.Array) -> losses.Dks:
        everyone = (outputs.backbone, *outputs.branches.values())
        return losses.dks([each.logits for each in everyone], labels, temperature=temperature)

    return method_with_heads(cohort, "dks", models.dks_branches, terms, {}, form=models.Form("dks"))


def byot(cohort: models.Cohort, *, temperature: float, feature_weight: float) -> base.Method:
    """Every network teaches two branches: labels, its logits and its last map.

    Args:
      cohort: networks without branches; they get those of `models.byot_branches`.
      temperature: T > 0 of `losses.byot`.
      feature_weight: of the mean squares between maps.

    Raises:
      UserError: networks of two stages, without blocks, or with shared stages; a temperature that
        is not positive; at the first call, branches whose last map has another shape than the
        network's.
    """
    check_temperature("byot", temperature)

    def terms(outputs: models.BranchedOutputs, labels: jax.Array) -> losses.Byot:
        everyone = (outputs.backbone, *outputs.branches.values())
        maps = [last_map(each) for each in everyone]
        _check_shapes([each.shape for each in maps])
        logits = [each.logits for each in everyone]
        return losses.byot(logits, maps, labels, temperature=temperature)

    weights = {"features": feature_weight}
    form = models.Form("byot")
    return method_with_heads(cohort, "byot", models.byot_branches, terms, weights, form=form)


def _check_shapes(shapes: list[tuple[int, ...]]) -> None:
    if len(set(shapes)) > 1:
        found = ", ".join("x".join(map(str, shape[1:])) for shape in shapes)
        raise UserError(
            f"method 'byot' compares last maps, which are {found} in the network and its branches; "
            "name a network in config.networks whose widths do not depend on the number of blocks, "
            "such as a ResNet"
        )
