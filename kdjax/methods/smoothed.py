"""Label smoothing with any method."""

from __future__ import annotations

import jax

from kdjax.errors import UserError
from kdjax.losses.smoothing import smoothed_labels
from kdjax.methods import base


def smoothed(method: base.Method, name: str, amount: float) -> base.Method:
    """A method whose loss smooths the class labels of its cross entropies.

    Joint labels of classes and transformations are class labels too. What is learned in
    `after_update`, and evaluation, see the labels as they are.

    Args:
      method: the method; it is returned unchanged for an `amount` of 0.
      name: of the method, for the message.
      amount: `config.smooth_labels`.

    Raises:
      UserError: by `loss`, when it is traced: it has no cross entropy on class labels.
    """
    if not amount:
        return method

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        with smoothed_labels(amount) as smoothing:
            result = method.loss(params, model_state, batch, key)
        if not smoothing.uses:
            raise UserError(
                f"config.smooth_labels={amount}: the loss of method {name!r} has no cross "
                "entropy on class labels; set it to 0"
            )
        return result

    return method._replace(loss=loss)
