"""The stages of a run: training of its teacher, if it has none, then of the run itself."""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from kdjax.networks import store
from kdjax.runs import workdir as workdirs
from kdjax.runs.console import logged, say
from kdjax.training import checks, loop, resumption, shrinking, teachers
from kdjax.training.building import build
from kdjax.training.early_stopping import early_stopping
from kdjax.training.hooks import GIVES_BACK, METHOD_REPORT, TRACED, Hook
from kdjax.training.profiling import profiled
from kdjax.training.program import Program


def train(config: ConfigDict, workdir: Path, *, profile_steps: int = 0) -> dict[str, float]:
    """Trains to `config.epochs`, resuming from the workdir's latest checkpoint.

    If the run trains a teacher, it is trained first, in the workdir's subdirectory 'teacher'.

    Args:
      config: see `kdjax.config`.
      workdir: the directory of the run.
      profile_steps: how many steps of the run itself are traced, to its subdirectory 'profile'.

    Returns:
      The evaluation metrics of the last epoch.

    Raises:
      UserError: invalid settings, data or workdir, or a loss that is not finite.
      Preempted: a signal ended the training; the state was saved.
    """
    checks.check(config)
    store.check_trainable(workdir)
    workdirs.check(workdir, config)
    teacher, directory = teachers.config_of_teacher(config), teachers.directory(workdir)
    if teacher is None or teachers.finished(teacher, directory):
        program, hooks, finished = _checked(config, workdir)  # before anything is written
        with workdirs.claimed(workdir, config, finished=finished), logged(workdir / "log.txt"):
            return _run(program, workdir, hooks, profile_steps)
    teachers.check(config)
    claimed = workdirs.claimed(workdir, config)  # before hours of the teacher's training
    with claimed, logged(workdir / "log.txt"):
        say(f"teacher {teacher.networks[0]}: {directory}")
        train(teacher, directory)
        say(f"student {config.networks[0]}: {workdir}")
        program, hooks, _ = _checked(config, workdir)
        return _run(program, workdir, hooks, profile_steps)


def _run(
    program: Program, workdir: Path, hooks: tuple[Hook, ...], profile_steps: int
) -> dict[str, float]:
    with profiled(workdir / "profile", profile_steps) as tracing:
        return loop.run(program, workdir, (*hooks, *tracing))


def _checked(config: ConfigDict, workdir: Path) -> tuple[Program, tuple[Hook, ...], bool]:
    """The program and the hooks of a run, after all checks, and whether all steps are made."""
    trained = store.latest_normalization(workdir)
    program, hooks = build(config, workdir, normalization=trained), hooks_of(config)
    program.check_best()
    finished = resumption.check_length(program, workdir)
    for hook in hooks:
        hook.check(program)
    return program, hooks, finished


def hooks_of(config: ConfigDict) -> tuple[Hook, ...]:
    """The hooks of a run's training loop."""
    hooks = [METHOD_REPORT, GIVES_BACK]
    if config.pruning.shrink_epochs:
        hooks.append(shrinking.SHRINKING)
    if config.smooth_labels:
        hooks.append(TRACED)
    if config.evaluation.patience:
        hooks.append(early_stopping(config))
    return tuple(hooks)
