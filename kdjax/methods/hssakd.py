"""HSAKD and HSSAKD: teachers, students of a teacher, and mutually distilling networks.

Yang et al., IJCAI 2021 (arXiv 2107.13715) and TNNLS 2022 (arXiv 2109.03075). All networks have a
branch after every stage for joint labels (`models.hsakd_branches`), which serves training only. All
views of an image are in the same batch, so that BatchNorm's statistics are over all of them.

Each method predicts `branches.scores`: class logits, and the class scores and joint logits of every
branch. The training metrics have the accuracy of each.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax import losses, numerics
from kdjax.data.transformations import Transformations
from kdjax.errors import UserError
from kdjax.methods import base
from kdjax.methods import joint_branches as branches
from kdjax.models import Cohort, Form
from kdjax.models.outputs import outputs_of


def hssakd_teacher(
    cohort: Cohort,
    *,
    transformations: Transformations,
    frozen_backbone: dict[str, Any] | None = None,
) -> base.Method:
    """Independent networks trained on labels, with branches trained on joint labels.

    Args:
      cohort: networks with branches for M transformations; one network if its backbone is frozen.
      transformations: the M transformations.
      frozen_backbone: variables `{'params', 'batch_stats'}` of a trained network, the backbone of
        the cohort's only network. It runs in evaluation mode and is part of the method's state, not
        of the parameters, so that the optimizer trains the branches only. None trains the whole
        network.

    Raises:
      UserError: networks without branches or for other transformations; several networks with a
        frozen backbone.
    """
    branches.check_cohort(cohort, transformations)
    if frozen_backbone is not None and len(cohort.networks) > 1:
        raise UserError("config.hssakd.freeze_backbone takes one network in config.networks")

    def init(key: jax.Array, images: jax.Array) -> tuple[base.Params, base.ModelState]:
        params, model_state = base.init_cohort(cohort, key, images)
        if frozen_backbone is None:
            return params, model_state
        constants = {branches.BACKBONE: jax.tree.map(jnp.asarray, frozen_backbone)}
        return (
            {"cohort": _branches_only(params["cohort"])},
            {
                "batch_stats": _branches_only(model_state["batch_stats"]),
                base.CONSTANTS: constants,
            },
        )

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        del key
        forward = base.train_outputs if frozen_backbone is None else _train_branches
        views = transformations.rows(batch["image"])
        outputs, model_state = forward(cohort, params, model_state, views)
        labels = batch["label"]
        terms = base.summed_terms(
            losses.hssakd_teacher(*branches.logits_of(network_outputs), labels)
            for network_outputs in outputs
        )
        return numerics.total(terms.values()), (
            model_state,
            terms | branches.accuracies(outputs, labels),
        )

    variables = base.network_variables if frozen_backbone is None else _with_frozen_backbone
    return _method(cohort, transformations, loss, init=init, variables=variables)


def hssakd_student(
    cohort: Cohort,
    teacher: nn.Module,
    teacher_variables: dict[str, Any],
    *,
    transformations: Transformations,
    temperature: float,
    renormalize: base.Renormalize = base.unchanged,
) -> base.Method:
    """Independent students trained on labels and a teacher's class and joint distributions.

    The teacher is frozen and in evaluation mode, in its own compute dtype. It is forwarded once per
    batch, whatever the number of students.

    Args:
      cohort: the students, with branches for M transformations.
      teacher: a network for the same classes, with as many branches as each student, for the same
        transformations.
      teacher_variables: the teacher's variables.
      transformations: the M transformations.
      temperature: T > 0 of `losses.hssakd_student`. Paper: 3.
      renormalize: maps the students' images to the teacher's normalization, as by
        `kdjax.networks.renormalization`.

    Raises:
      UserError: a student or the teacher has no branches, or classes, branches or transformations
        differ between them.
    """
    branches.check_cohort(cohort, transformations)
    branches.check_teacher(teacher, cohort, transformations)

    def init(key: jax.Array, images: jax.Array) -> tuple[base.Params, base.ModelState]:
        params, model_state = base.init_cohort(cohort, key, images)
        constants = {"teacher": jax.tree.map(jnp.asarray, teacher_variables)}
        return params, model_state | {base.CONSTANTS: constants}

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        del key
        labels, views = batch["label"], transformations.rows(batch["image"])
        outputs, model_state = base.train_outputs(cohort, params, model_state, views)
        # Renormalized before the transformations, which may permute the channels.
        teacher_images = renormalize(batch["image"])
        teacher_images = (
            views if teacher_images is batch["image"] else transformations.rows(teacher_images)
        )
        teacher_outputs = outputs_of(
            teacher, model_state[base.CONSTANTS]["teacher"], teacher_images
        )
        teacher_logits = branches.logits_of(teacher_outputs)
        terms = base.summed_terms(
            losses.hssakd_student(
                *branches.logits_of(network_outputs),
                labels,
                *teacher_logits,
                temperature=temperature,
            )
            for network_outputs in outputs
        )
        metrics = terms | branches.accuracies(outputs, labels)
        untransformed = teacher_logits[0][:: transformations.count]
        metrics["teacher/accuracy"] = jnp.mean(untransformed.argmax(-1) == labels)
        return numerics.total(terms.values()), (model_state, metrics)

    return _method(cohort, transformations, loss, init=init)


def hssakd_online(
    cohort: Cohort, *, transformations: Transformations, temperature: float
) -> base.Method:
    """Networks trained on labels, joint labels, and each other's class and joint distributions.

    Args:
      cohort: two networks or more with equally many branches, for M transformations.
      transformations: the M transformations.
      temperature: T > 0 of `losses.hssakd_online`. Official code: 3.

    Raises:
      UserError: fewer than two networks, or networks without branches, for other transformations or
        with different numbers of branches.
    """
    if len(cohort.networks) < 2:
        raise UserError("method 'hssakd_online' needs at least two networks in config.networks")
    branches.check_cohort(cohort, transformations)
    counts = [len(network.heads) for network in cohort.networks]
    if len(set(counts)) > 1:
        raise UserError(
            f"the networks of method 'hssakd_online' have {' and '.join(map(str, counts))} "
            "branches; name networks with equally many stages in config.networks"
        )

    def loss(
        params: base.Params, model_state: base.ModelState, batch: base.Batch, key: jax.Array
    ) -> base.LossResult:
        del key
        views = transformations.rows(batch["image"])
        outputs, model_state = base.train_outputs(cohort, params, model_state, views)
        logits, heads = zip(*map(branches.logits_of, outputs), strict=True)
        labels = batch["label"]
        terms = base.summed_terms(
            [losses.hssakd_online(logits, heads, labels, temperature=temperature)]
        )
        return numerics.total(terms.values()), (
            model_state,
            terms | branches.accuracies(outputs, labels),
        )

    return _method(cohort, transformations, loss)


def _method(
    cohort: Cohort, transformations: Transformations, loss: base.Loss, **fields: Any
) -> base.Method:
    """A cohort method that trains on and predicts from all views of every image."""
    return base.cohort_method(
        cohort,
        loss,
        predict=functools.partial(branches.predict, cohort, transformations),
        inputs=functools.partial(_inputs, transformations),
        form=Form("hsakd", (("transformations", transformations.count),)),
        **fields,
    )


def _with_frozen_backbone(
    params: base.Params, model_state: base.ModelState, index: int
) -> base.Variables:
    collections = branches.variables(params, model_state)
    return {name: tree[f"network_{index}"] for name, tree in collections.items()}


def _inputs(transformations: Transformations, batch: base.Batch, key: jax.Array) -> base.Inputs:
    """All views of every image, with the image's label and the name of the transformation."""
    plain = base.plain_inputs(batch, key)
    labels, weights = (
        jnp.repeat(array, transformations.count, axis=0) for array in (plain.labels, plain.weights)
    )
    notes = transformations.view_names * len(plain.labels)
    return base.Inputs(transformations.rows(plain.images), labels, weights, notes)


def _branches_only(collection: dict[str, Any]) -> dict[str, Any]:
    """The variables of a cohort of one network without those of the backbone."""
    branches_of_network = {
        name: value for name, value in collection["network_0"].items() if name != branches.BACKBONE
    }
    return {"network_0": branches_of_network}


def _train_branches(
    cohort: nn.Module, params: base.Params, model_state: base.ModelState, views: jax.Array
) -> tuple[Any, base.ModelState]:
    """`base.train_outputs` for one network whose backbone is frozen."""
    network_variables = {
        name: collection["network_0"]
        for name, collection in branches.variables(params, model_state).items()
    }
    outputs, updated = cohort.networks[0].apply(
        network_variables, views, train=True, freeze_backbone=True, mutable=["batch_stats"]
    )
    batch_stats = _branches_only({"network_0": updated["batch_stats"]})
    return (outputs,), model_state | {"batch_stats": batch_stats}
