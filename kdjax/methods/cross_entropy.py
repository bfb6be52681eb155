"""The baseline: every network learns from the labels alone."""

import functools

from kdjax.methods import base
from kdjax.models import Cohort


def cross_entropy(cohort: Cohort) -> base.Method:
    """Independent networks trained with cross entropy; nothing couples them but the batch."""

    def loss(params, model_state, batch, key):
        del key
        outputs, model_state = base.train_outputs(cohort, params, model_state, batch["image"])
        total, metrics = base.classification(outputs, batch["label"])
        return total, (model_state, metrics)

    return base.Method(
        init=functools.partial(base.init_cohort, cohort),
        loss=loss,
        predict=functools.partial(base.predict_cohort, cohort),
        logits_only=True,
    )
