"""The method that all baselines share: a student, its teacher and a loss between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from kdjax import losses
from kdjax.errors import UserError
from kdjax.methods import base
from kdjax.methods.baselines.distillation.comparison import Baseline, TwoPhases
from kdjax.models import Cohort, Outputs

_ADAPTERS = "adapters"
_STEM = "stem"


def distill(
    cohort: Cohort,
    teacher: nn.Module,
    teacher_variables: dict[str, Any],
    baseline: Baseline,
    *,
    weight: float,
    label_weight: float,
    teacher_weight: float = 0.0,
    temperature: float = 4.0,
    steps_per_epoch: int | None = None,
    constants: Mapping[str, Any] | None = None,
    renormalize: base.Renormalize = base.unchanged,
) -> base.Method:
    """A student trained on labels and, by one baseline, with a trained teacher.

    `label_weight CE + teacher_weight KD + weight L`, L being the baseline's loss; RepDistiller's
    options -r, -a and -b. The teacher sees each batch once, in evaluation mode, and is frozen. In
    the first phase of a `TwoPhases` baseline there is nothing but that phase's loss.

    Args:
      cohort: the student, alone.
      teacher: a network for the same number of classes; `Outputs` or `BranchedOutputs`.
      teacher_variables: its weights; they are in the method's state.
      baseline: what is compared, see `BASELINES`.
      weight: of the baseline's loss.
      label_weight: of the cross entropy.
      teacher_weight: of `losses.kd` in addition.
      temperature: of that.
      steps_per_epoch: needed by baselines with phases or a warm-up, which also need 'step' in the
        batch.
      constants: arrays that the baseline finds in its batch, such as CRD's `others`.
      renormalize: from the student's images to the teacher's, `kdjax.networks.renormalization`.

    Raises:
      UserError: more than one student, or (by `init`) layers that cannot be compared.
    """
    if len(cohort.networks) > 1:
        raise UserError("distillation takes one network in config.networks: the student")
    phased = isinstance(baseline, TwoPhases) and baseline.init_epochs > 0
    warms_up = getattr(baseline, "warm_up_epochs", 0) > 0
    if (phased or warms_up) and steps_per_epoch is None:
        raise ValueError(f"{type(baseline).__name__} counts epochs: give steps_per_epoch")

    def complete(batch: dict[str, Any], constants: Mapping[str, Any]) -> dict[str, Any]:
        """The batch that baselines receive."""
        if steps_per_epoch is not None and "step" in batch:
            batch = batch | {"epoch": batch["step"] // steps_per_epoch}
        return batch | {name: value for name, value in constants.items() if name != "teacher"}

    def init(key: jax.Array, images: jax.Array) -> tuple[base.Params, base.ModelState]:
        cohort_key, adapter_key = jax.random.split(key)
        params, model_state = base.init_cohort(cohort, cohort_key, images)
        frozen = jax.tree.map(jnp.asarray, {"teacher": teacher_variables, **(constants or {})})
        model_state |= {base.CONSTANTS: frozen}
        outputs = _zeros(cohort, teacher, params, model_state, images)
        index = jnp.arange(len(images))
        batch = complete({"label": 0 * index, "index": index, "step": 0}, frozen)
        local = baseline.clone(axis_name=None)  # out here there are no devices to gather from
        try:
            variables = dict(local.init(adapter_key, *outputs, batch, adapter_key))
        except ValueError as error:
            raise UserError(f"method {type(baseline).__name__!r}: {error}") from error
        adapters = variables.pop("params", None)
        params |= {} if adapters is None else {_ADAPTERS: adapters}
        return params, model_state | ({_ADAPTERS: variables} if variables else {})

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        images, labels = batch["image"], batch["label"]
        frozen = model_state[base.CONSTANTS]
        batch = complete(batch, frozen)
        student, updated = _student(cohort, params, model_state, images, train=True)
        taught = _taught(teacher, frozen["teacher"], renormalize(images))
        taught = jax.lax.stop_gradient(taught)
        state = model_state.get(_ADAPTERS, {})
        variables = {"params": params.get(_ADAPTERS, {}), **state}
        terms, state = baseline.apply(variables, student, taught, batch, key, mutable=list(state))
        updated |= {_ADAPTERS: state} if state else {}

        classified, metrics = base.classification([student], labels)
        metrics["distillation"] = jnp.mean(terms.loss)
        metrics["teacher/accuracy"] = jnp.mean(taught.logits.argmax(-1) == labels)
        total = label_weight * classified + weight * metrics["distillation"]
        if teacher_weight:
            softened = losses.kd(student.logits, taught.logits, temperature=temperature)
            metrics["kd"] = jnp.mean(softened)
            total += teacher_weight * metrics["kd"]
        if phased:
            first = batch["epoch"] < baseline.init_epochs
            metrics["first_phase"] = jnp.mean(terms.first)
            total = jnp.where(first, metrics["first_phase"], total)
            if baseline.student_waits:
                old = {name: model_state[name] for name in updated}
                updated = jax.tree.map(lambda a, b: jnp.where(first, a, b), old, updated)
        return total, (model_state | updated, metrics)

    def optimizer(tx: optax.GradientTransformation) -> optax.GradientTransformation:
        return baseline.optimizer(tx, steps_per_epoch) if phased else tx

    return base.cohort_method(cohort, loss, init=init, optimizer=optimizer)


def _zeros(
    cohort: Cohort,
    teacher: nn.Module,
    params: base.Params,
    model_state: base.ModelState,
    images: jax.Array,
) -> tuple[Outputs, Outputs]:
    """Zeros in the shapes of the student's and the teacher's outputs; nothing is computed."""

    def both(params: base.Params, model_state: base.ModelState) -> tuple[Outputs, Outputs]:
        student, _ = _student(cohort, params, model_state, images, train=False)
        return student, _taught(teacher, model_state[base.CONSTANTS]["teacher"], images)

    shapes = jax.eval_shape(both, params, model_state)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def _student(
    cohort: Cohort,
    params: base.Params,
    model_state: base.ModelState,
    images: jax.Array,
    train: bool,
) -> tuple[Outputs, dict[str, Any]]:
    """The student's outputs, its stem's among the features, and updated batch statistics."""
    variables = {"params": params["cohort"], "batch_stats": model_state["batch_stats"]}
    mutable = ["intermediates"] + ["batch_stats"] * train
    (outputs,), changed = cohort.apply(variables, images, train=train, mutable=mutable)
    updated = dict(changed)
    seen = updated.pop("intermediates", {})
    return _with_stem(outputs, seen.get("trunk", seen.get("network_0", {}))), updated


def _taught(teacher: nn.Module, variables: dict[str, Any], images: jax.Array) -> Outputs:
    """`_student` for the teacher, in evaluation mode."""
    outputs, updated = teacher.apply(variables, images, mutable=["intermediates"])
    seen = updated.get("intermediates", {})
    return _with_stem(getattr(outputs, "backbone", outputs), seen.get("backbone", seen))


def _with_stem(outputs: Outputs, seen: dict[str, Any]) -> Outputs:
    stem = {_STEM: seen[_STEM][0]} if _STEM in seen else {}
    return outputs._replace(features=stem | outputs.features)
