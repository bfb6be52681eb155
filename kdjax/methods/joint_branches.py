"""Branches for joint labels in HSAKD's methods: checks, scores and accuracies."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax import losses, numerics
from kdjax.data.transformations import Transformations
from kdjax.errors import UserError
from kdjax.methods import base
from kdjax.models import Branched, BranchedOutputs, Cohort
from kdjax.models.outputs import outputs_of

BACKBONE = "backbone"


def check_cohort(cohort: Cohort, transformations: Transformations) -> None:
    """Raises `UserError` unless all networks have branches for the transformations."""
    for index, network in enumerate(cohort.networks):
        _check_network(network, transformations, f"network_{index}")


def check_teacher(teacher: nn.Module, cohort: Cohort, transformations: Transformations) -> None:
    """Checks that every network of a cohort can learn from all branches of a teacher.

    Raises:
      UserError: classes, branches or transformations differ.
    """
    _check_network(teacher, transformations, "the teacher")
    for index, student in enumerate(cohort.networks):
        if student.network.num_classes != teacher.network.num_classes:
            raise UserError(
                f"the teacher has {teacher.network.num_classes} classes, network_{index} has "
                f"{student.network.num_classes}"
            )
        if len(student.heads) != len(teacher.heads):
            raise UserError(
                f"the teacher has {len(teacher.heads)} branches, network_{index} has "
                f"{len(student.heads)}; choose a student with as many stages as the teacher"
            )


def _check_network(network: nn.Module, transformations: Transformations, owner: str) -> None:
    count, name = transformations.count, transformations.name
    required = f"config.hssakd.transformations={name!r} needs branches for {count} transformations"
    if not isinstance(network, Branched):
        raise UserError(
            f"{owner} has no branches: {required}; train it with method 'hssakd_teacher', or "
            "import it with the suffix _aux"
        )
    num_classes = network.network.num_classes
    labels = sorted({head.num_classes for _, head in network.heads})
    if labels != [count * num_classes]:
        branch_counts = " and ".join(f"{size / num_classes:g}" for size in labels)
        raise UserError(f"{owner} has branches for {branch_counts} transformations: {required}")


def variables(params: base.Params, model_state: base.ModelState) -> base.Variables:
    """The variables of a cohort, including a frozen backbone in the method's state."""
    collections = {"params": params["cohort"], "batch_stats": model_state["batch_stats"]}
    frozen = model_state.get(base.CONSTANTS, {}).get(BACKBONE, {})
    for name, collection in frozen.items():
        collections[name] = {"network_0": collections[name]["network_0"] | {BACKBONE: collection}}
    return collections


def logits_of(outputs: BranchedOutputs) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Class logits, and the joint logits of every branch."""
    heads = {name: branch.logits for name, branch in outputs.branches.items()}
    return outputs.backbone.logits, heads


def scores(outputs: Sequence[BranchedOutputs], count: int) -> dict[str, jax.Array]:
    """Class logits of networks, and class scores and joint logits of their branches.

    Args:
      outputs: the outputs of every network, for `B * count` views.
      count: M, the number of transformations.

    Returns:
      `network_i` `[B, N]`, the class logits of the untransformed images; for every branch
      `network_i/branchk` `[B, N]`, its class scores of these, and `network_i/branchk/joint`
      `[B, M, N * M]`, its joint logits of all views.
    """
    scores_by_name = {}
    for index, network_outputs in enumerate(outputs):
        logits, heads = logits_of(network_outputs)
        scores_by_name[f"network_{index}"] = class_logits = logits[::count]
        for name, head in heads.items():
            joint = head.reshape(len(class_logits), count, -1)
            scores_by_name[f"network_{index}/{name}"] = losses.class_scores(
                joint[:, 0], class_logits.shape[-1]
            )
            scores_by_name[f"network_{index}/{name}/joint"] = joint
    return scores_by_name


def accuracies(outputs: Sequence[BranchedOutputs], labels: jax.Array) -> base.Metrics:
    """The accuracy of each of the `scores`, over all views for joint logits."""
    count = outputs[0].backbone.logits.shape[0] // labels.shape[0]
    joint = losses.joint_labels(labels, count).reshape(-1, count)
    return {
        f"{name}/accuracy": jnp.mean(values.argmax(-1) == (labels if values.ndim == 2 else joint))
        for name, values in scores(outputs, count).items()
    }


def predict(
    cohort: Cohort,
    transformations: Transformations,
    params: base.Params,
    model_state: base.ModelState,
    images: jax.Array,
) -> dict[str, jax.Array]:
    """The `scores` and, with two networks or more, `ensemble`: their mean class logits."""
    views = transformations.rows(images)
    outputs = outputs_of(cohort, variables(params, model_state), views, train=False)
    predictions = scores(outputs, transformations.count)
    if len(outputs) > 1:
        predictions["ensemble"] = numerics.total(
            predictions[f"network_{i}"] for i in range(len(outputs))
        ) / len(outputs)
    return predictions
