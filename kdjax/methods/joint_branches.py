"""What HSAKD's methods share: networks with branches, and what these say of views of images."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax import losses
from kdjax.data.transformations import Transformations
from kdjax.errors import UserError
from kdjax.methods import base
from kdjax.models import Branched, BranchedOutputs, Cohort

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


def _check_network(network: nn.Module, transformations: Transformations, whose: str) -> None:
    count, name = transformations.count, transformations.name
    wanted = f"config.hssakd.transformations={name!r} needs branches for {count} transformations"
    if not isinstance(network, Branched):
        raise UserError(
            f"{whose} has no branches: {wanted}; train it with method 'hssakd_teacher', or import "
            "it with the suffix _aux"
        )
    num_classes = network.network.num_classes
    labels = sorted({head.num_classes for _, head in network.heads})
    if labels != [count * num_classes]:
        found = " and ".join(f"{each / num_classes:g}" for each in labels)
        raise UserError(f"{whose} has branches for {found} transformations: {wanted}")


def variables(params: base.Params, model_state: base.ModelState) -> dict:
    """The variables of a cohort, a frozen backbone of its only network included."""
    found = {"params": params["cohort"], "batch_stats": model_state["batch_stats"]}
    frozen = model_state.get(base.CONSTANTS, {}).get(BACKBONE, {})
    for name, collection in frozen.items():
        found[name] = {"network_0": found[name]["network_0"] | {BACKBONE: collection}}
    return found


def logits_of(outputs: BranchedOutputs) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Class logits, and the joint logits of every branch."""
    heads = {name: branch.logits for name, branch in outputs.branches.items()}
    return outputs.backbone.logits, heads


def scores(outputs: Sequence[BranchedOutputs], count: int) -> dict[str, jax.Array]:
    """What networks say of images, from their outputs for the images' views.

    Args:
      outputs: of every network, for `B * count` views.
      count: M, the number of transformations.

    Returns:
      `network_i` `[B, N]`, class logits of the images themselves; of every branch
      `network_i/branchk` `[B, N]`, its class scores of them, and `network_i/branchk/joint`
      `[B, M, N * M]`, its joint logits of all views.
    """
    found = {}
    for index, each in enumerate(outputs):
        logits, heads = logits_of(each)
        found[f"network_{index}"] = own = logits[::count]
        for name, head in heads.items():
            joint = head.reshape(len(own), count, -1)
            found[f"network_{index}/{name}"] = losses.class_scores(joint[:, 0], own.shape[-1])
            found[f"network_{index}/{name}/joint"] = joint
    return found


def accuracies(outputs: Sequence[BranchedOutputs], labels: jax.Array) -> base.Metrics:
    """The accuracy of each of the `scores`; of joint logits it is over all views."""
    count = outputs[0].backbone.logits.shape[0] // labels.shape[0]
    joint = losses.joint_labels(labels, count).reshape(-1, count)
    return {
        f"{name}/accuracy": jnp.mean(each.argmax(-1) == (labels if each.ndim == 2 else joint))
        for name, each in scores(outputs, count).items()
    }


def predict(
    cohort: Cohort,
    transformations: Transformations,
    params: base.Params,
    model_state: base.ModelState,
    images: jax.Array,
) -> dict[str, jax.Array]:
    """The `scores` and, from two networks on, `ensemble`: their mean class logits."""
    views = transformations.rows(images)
    outputs = cohort.apply(variables(params, model_state), views, train=False)
    found = scores(outputs, transformations.count)
    if len(outputs) > 1:
        found["ensemble"] = sum(found[f"network_{i}"] for i in range(len(outputs))) / len(outputs)
    return found
