"""The stages of a run: its teacher is trained first, where it has none, then the run itself."""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from kdjax.networks import store
from kdjax.runs import workdir as workdirs
from kdjax.runs.console import say
from kdjax.training import checks, loop, resumption, shrinking, teachers
from kdjax.training.hooks import METHOD_REPORT, Hook
from kdjax.training.program import Program, build


def train(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Trains to `config.epochs`, going on from the workdir's latest checkpoint.

    A teacher that is to be trained first is trained in the workdir's subdirectory 'teacher'.

    Returns:
      The evaluation metrics of the last epoch.

    Raises:
      UserError: settings, data or workdir that cannot be used; a loss that is not finite.
      Preempted: SIGTERM came; the state was saved.
    """
    checks.check(config)
    store.check_trainable(workdir)
    workdirs.check(workdir, config)
    teacher, directory = teachers.config_of_teacher(config), teachers.directory(workdir)
    if teacher is None or teachers.finished(teacher, directory):
        program, hooks = _checked(config, workdir)  # before anything is written
        with workdirs.claimed(workdir, config):
            return loop.run(program, workdir, hooks)
    teachers.check(config)
    with workdirs.claimed(workdir, config):  # before hours of the teacher's training
        say(f"teacher {teacher.networks[0]}: {directory}")
        train(teacher, directory)
        say(f"student {config.networks[0]}: {workdir}")
        program, hooks = _checked(config, workdir)
        return loop.run(program, workdir, hooks)


def _checked(config: ConfigDict, workdir: Path) -> tuple[Program, tuple[Hook, ...]]:
    """The program and the hooks of a run, which can be trained to its end."""
    trained = store.latest_normalization(workdir)
    program, hooks = build(config, workdir, normalization=trained), hooks_of(config)
    program.check_best()
    resumption.check_length(program, workdir)
    for hook in hooks:
        hook.check(program)
    return program, hooks


def hooks_of(config: ConfigDict) -> tuple[Hook, ...]:
    """What takes part in the training of a run beside the loop."""
    if config.pruning.shrink_epochs:
        return METHOD_REPORT, shrinking.SHRINKING
    return (METHOD_REPORT,)
