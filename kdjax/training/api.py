"""Training from Python, in a notebook or a program: `kdjax.train`."""

from __future__ import annotations

import signal
from pathlib import Path

import jax
from ml_collections import ConfigDict

from kdjax import config as configs
from kdjax.data.regular_files import expanded
from kdjax.errors import UserError
from kdjax.report import page
from kdjax.training import stages
from kdjax.training.evaluation import Run, load_run
from kdjax.training.preemption import Preempted


def train(config: ConfigDict | str, workdir: str | Path) -> Run:
    """Trains a run to `config.epochs`, going on from the workdir's latest checkpoint.

        config = kdjax.config.read("mcl:digits")
        config.epochs = 3
        run = kdjax.train(config, "runs/digits")
        run.history()["mean/top1"]

    It is what `--job=train` does, to the same bits: the same files are written, a run that was
    stopped goes on, and a run whose epochs are done is read only. Jupyter shows the same bar. An
    interrupt (Ctrl-C, or the stop button of a notebook) saves the state first.

    Args:
      config: a config as `kdjax.config` makes them, or what `kdjax.config.read` takes.
      workdir: directory of the run; made if missing.

    Returns:
      The run, as `kdjax.load_run` reads it.

    Raises:
      UserError: invalid settings, data or workdir, or a loss that is not finite.
      KeyboardInterrupt: the training was interrupted; the state was saved.
    """
    if isinstance(config, str):
        config = configs.read(config)
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"config is of type {type(config).__name__}: give a ConfigDict, for instance "
            'kdjax.config.read("mcl:digits")'
        )
    workdir = expanded(str(workdir), "workdir")
    try:
        stages.train(config, workdir)
    except Preempted as error:
        if error.number == signal.SIGINT:
            raise KeyboardInterrupt from error
        raise
    if page.available() and jax.process_index() == 0:
        page.after_training(workdir)
    return load_run(workdir)
