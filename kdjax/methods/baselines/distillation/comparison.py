"""Building blocks of the distillation baselines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax

from kdjax.errors import UserError
from kdjax.methods.baselines.distillation import phases
from kdjax.models import Outputs
from kdjax.settings import setting

Batch = dict[str, Any]


class Terms(NamedTuple):
    """The result of a baseline for a batch.

    Attributes:
      loss: `[B]`, added to the student's own loss with a weight.
      first: `[B]`, the only loss of a first phase of training; None where there is no such phase.
    """

    loss: jax.Array
    first: jax.Array | None = None


class Layer(NamedTuple):
    """A layer that is compared: its name in the student, and the two maps `[B, H, W, C]`."""

    name: str
    student: jax.Array
    teacher: jax.Array


class Baseline(nn.Module, kw_only=True):
    """A loss between a student and its teacher, with its trained modules and its memory.

    It is called in training only: `(student, teacher, batch, key) -> Terms`. Parameters are the
    adapters (regressors, embeddings), which are trained with the student and not used for
    prediction; other collections ('batch_stats', 'memory') are part of the method's state.

    `batch` has 'label', 'index', 'epoch' (of the step, from 0) and the method's constants.

    Attributes:
      axis_name: mapped device axis, over which losses between images are taken, or None.
      norm_axis_name: mapped axis over which BatchNorm statistics of adapters are shared, or None.

    A subclass declares its settings as fields made by `kdjax.settings.setting`; further fields
    named as those of `kdjax.methods.registry.Context` are filled in from the run.
    """

    axis_name: str | None = None
    norm_axis_name: str | None = None

    @staticmethod
    def constants(train_labels: np.ndarray | None) -> dict[str, Any]:
        """Arrays of the training split that are part of the baseline's batch."""
        del train_labels
        return {}


class TwoPhases(Baseline, kw_only=True):
    """A baseline with a first phase that trains `Terms.first` only.

    As in RepDistiller, each phase has its own optimizer: what a phase does not train is left as it
    is (no weight decay either), and momentum starts from zero again.

    Attributes:
      init_epochs: length of the first phase.
    """

    init_epochs: int = setting(30, "of the first phase, in addition", at_least=0)

    @property
    def student_waits(self) -> bool:
        """Whether the student's batch statistics stay as they are in the first phase, too."""
        return False

    @nn.nowrap
    def rates(self, path: tuple[str, ...]) -> tuple[float, float]:
        """Factors of a parameter's learning rate in the two phases: 0 is not trained.

        `path` begins with 'cohort' and 'network_0', or with 'adapters'.
        """
        del path
        return 1.0, 1.0

    @nn.nowrap
    def optimizer(
        self, tx: optax.GradientTransformation, steps_per_epoch: int
    ) -> optax.GradientTransformation:
        """`tx` with the two phases."""
        return phases.two_phases(
            tx, first_steps=self.init_epochs * steps_per_epoch, rates=self.rates
        )


def is_feature(path: tuple[str, ...]) -> bool:
    """Whether a parameter is the student's, and feature maps depend on it: not the classifier's."""
    return path[0] == "cohort" and path[2].startswith(("stem", "stage"))


def layers_setting(*names: str) -> Any:
    """The setting `layers`: 'stem', 'stage1', ..., 'last' (stage), 'stages' (all of them)."""
    return setting(names, "layers compared: stem, stage1, ..., last, stages")


def layers_of(student: Outputs, teacher: Outputs, names: Sequence[str]) -> list[Layer]:
    """The layers of these names in the student and in the teacher.

    Args:
      student: with the stem's output under 'stem' among its features.
      teacher: likewise.
      names: 'stem', 'stage1', 'stage2', ...; 'last' is each network's last stage, 'stages' every
        stage.

    Raises:
      UserError: a layer that one of the networks does not have, one named twice, or none.
    """
    student_names, teacher_names = (
        _named(student, names, "the student"),
        _named(teacher, names, "the teacher"),
    )
    if len(student_names) != len(teacher_names):
        raise UserError(
            f"student and teacher have {_count_stages(student)} and {_count_stages(teacher)} "
            f"stages, so layers={tuple(names)} does not pair them; name those to compare, such as "
            "('stage1', 'stage2', 'last')"
        )
    if not student_names or len(set(student_names)) < len(student_names):
        raise UserError(f"layers={tuple(names)} names no layer, or one twice")
    return [
        Layer(name, student.features[name], teacher.features[other])
        for name, other in zip(student_names, teacher_names, strict=True)
    ]


def maps_of(layers: Sequence[Layer]) -> tuple[list[jax.Array], list[jax.Array]]:
    """The maps of the student and those of the teacher."""
    return [layer.student for layer in layers], [layer.teacher for layer in layers]


def _count_stages(outputs: Outputs) -> int:
    return sum(name.startswith("stage") for name in outputs.features)


def _named(outputs: Outputs, names: Sequence[str], whose: str) -> list[str]:
    """Names of features, with 'last' and 'stages' expanded."""
    stages = [name for name in outputs.features if name.startswith("stage")]
    short = {"last": stages[-1:], "stages": stages}
    expanded = [full_name for name in names for full_name in short.get(name, [name])]
    for name in expanded:
        if name not in outputs.features:
            choice = ", ".join([*outputs.features, *short])
            raise UserError(f"{whose} has no layer {name!r}; choose from {choice}")
    return expanded
