"""The baseline: networks trained with cross entropy only."""

import jax

from kdjax.methods import base
from kdjax.methods.registry import LOGITS, NoSettings, register
from kdjax.models import Cohort


@register(
    "cross_entropy",
    reads=LOGITS,
    source="the baseline of every paper",
    paper="ResNet-32 70.91 (MCL, table 1)",
)
def cross_entropy(cohort: Cohort, settings: NoSettings) -> base.Method:
    """Independent networks trained with cross entropy; nothing couples them but the batch."""
    del settings

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        del key
        outputs, model_state = base.train_outputs(cohort, params, model_state, batch["image"])
        total, metrics = base.classification(outputs, batch["label"])
        return total, (model_state, metrics)

    return base.cohort_method(cohort, loss)
