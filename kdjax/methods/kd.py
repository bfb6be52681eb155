"""Knowledge distillation from a trained teacher (Hinton et al., 2015, arXiv 1503.02531)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.methods import base
from kdjax.models import Cohort


def kd(
    cohort: Cohort,
    teacher: nn.Module,
    teacher_variables: dict[str, Any],
    *,
    temperature: float,
    label_weight: float,
    teacher_weight: float,
) -> base.Method:
    """Every network learns from the labels and from the teacher's softened logits.

    `label_weight * CE + teacher_weight * T^2 KL(teacher || student)`, for each network of the
    cohort by itself. The teacher is in evaluation mode and frozen; its weights are in the method's
    state.

    Args:
      cohort: the students.
      teacher: a network for the same number of classes; `Outputs` or `BranchedOutputs`.
      teacher_variables: its weights.
      temperature: T > 0 of `losses.kd`.
      label_weight: of the cross entropy.
      teacher_weight: of the distillation.
    """

    def init(key, images):
        params, model_state = base.init_cohort(cohort, key, images)
        constants = {"teacher": jax.tree.map(jnp.asarray, teacher_variables)}
        return params, model_state | {base.CONSTANTS: constants}

    def loss(params, model_state, batch, key):
        del key
        outputs, model_state = base.train_outputs(cohort, params, model_state, batch["image"])
        classified, metrics = base.classification(outputs, batch["label"])
        taught = teacher.apply(model_state[base.CONSTANTS]["teacher"], batch["image"])
        logits = getattr(taught, "backbone", taught).logits
        distilled = sum(
            jnp.mean(losses.kd(each.logits, logits, temperature=temperature)) for each in outputs
        )
        metrics |= {
            "distillation": distilled,
            "teacher/accuracy": jnp.mean(logits.argmax(-1) == batch["label"]),
        }
        return label_weight * classified + teacher_weight * distilled, (model_state, metrics)

    def predict(params, model_state, images):
        return base.predict_cohort(cohort, params, model_state, images)

    return base.Method(init=init, loss=loss, predict=predict)
