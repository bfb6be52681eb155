"""SAD and FRSKD: networks whose maps learn where to look."""

import functools

import jax
import jax.numpy as jnp

from kdjax import losses, models
from kdjax.errors import UserError
from kdjax.methods import base
from kdjax.methods.self_distill.heads import method_with_heads
from kdjax.methods.self_distill.settings import check_form, check_temperature


def sad(cohort: models.Cohort, *, weight: float) -> base.Method:
    """Every stage of a network attends to where its next stage does.

    Args:
      cohort: any networks, which learn each for itself.
      weight: of `losses.sad`.
    """

    def loss(params, model_state, batch, key):
        del key
        outputs, model_state = base.train_outputs(cohort, params, model_state, batch["image"])
        total, metrics = base.classification(outputs, batch["label"])
        maps = [list(each.features.values()) for each in outputs]
        metrics["attention"] = jnp.mean(sum(losses.sad(each) for each in maps))
        return total + weight * metrics["attention"], (model_state, metrics)

    return base.Method(
        init=functools.partial(base.init_cohort, cohort),
        loss=loss,
        predict=functools.partial(base.predict_cohort, cohort),
    )


def frskd(
    cohort: models.Cohort,
    *,
    temperature: float,
    kd_weight: float,
    attention_weight: float,
    width: int,
    depth: int,
    form: str,
) -> base.Method:
    """Every network learns from a feature pyramid over its own maps, a self-teacher.

    Args:
      cohort: networks whose maps halve from stage to stage; they get a `models.Pyramid`.
      temperature: T > 0 of `losses.frskd`.
      kd_weight: of the divergence from the pyramid.
      attention_weight: of attention transfer from the pyramid.
      width: as of `models.BiFPN`.
      depth: as of `models.BiFPN`.
      form: 'paper' or 'library', of `losses.frskd`.

    Raises:
      UserError: an unknown form, a temperature that is not positive, a pyramid without channels or
        layers, or shared stages; at the first call, maps that do not halve.
    """
    check_form("frskd", form)
    check_temperature("frskd", temperature)
    for name, value in (("width", width), ("depth", depth)):
        if value < 1:
            raise UserError(f"config.self_distill.frskd.{name}={value} must be positive")

    def terms(outputs: models.PyramidOutputs, labels: jax.Array) -> losses.Frskd:
        return losses.frskd(
            outputs.backbone.logits,
            outputs.logits,
            outputs.backbone.features,
            outputs.features,
            labels,
            temperature=temperature,
            form=form,
        )

    pyramid = functools.partial(models.Pyramid, width=width, depth=depth)
    weights = {"distillation": kd_weight, "attention": attention_weight}
    return method_with_heads(cohort, "frskd", pyramid, terms, weights, variables=_without_pyramid)


def _without_pyramid(params: base.Params, model_state: base.ModelState, index: int) -> dict:
    variables = base.network_variables(params, model_state, index)
    return {name: tree["backbone"] for name, tree in variables.items()}
