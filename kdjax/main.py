"""The command line: `python -m kdjax.main --config configs/mcl.py --workdir runs/mcl`."""

import errno
import os
import sys
from pathlib import Path

from absl import flags

from kdjax.errors import UserError

_USAGE_STATUS = 2
_JOBS = ("train", "evaluate")


def define_flags(values: flags.FlagValues) -> None:
    """Adds the command line's flags to `values`."""
    from ml_collections import config_flags

    config_flags.DEFINE_config_file(
        "config", None, "A file of configs/, FILE.py or FILE.py:ARGUMENTS.", flag_values=values
    )
    flags.DEFINE_string("workdir", None, "Directory of the run.", flag_values=values)
    flags.DEFINE_enum(
        "job",
        "train",
        _JOBS,
        "train: train, going on from the workdir's latest checkpoint. evaluate: evaluate a "
        "checkpoint of the workdir on the whole test split.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "checkpoint", "best", ["best", "latest"], "Which one to evaluate.", flag_values=values
    )
    flags.DEFINE_bool(
        "distributed",
        "JAX_COORDINATOR_ADDRESS" in os.environ,
        "Join the other processes before anything else: needed on pods. On by default where "
        "JAX_COORDINATOR_ADDRESS is set.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "coordinator", None, "HOST:PORT of process 0, where it is not found.", flag_values=values
    )
    flags.DEFINE_integer(
        "num_processes",
        _environment_number("JAX_NUM_PROCESSES"),
        "How many, where it is not found.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "process_id",
        _environment_number("JAX_PROCESS_ID"),
        "This one's number, where it is not found.",
        flag_values=values,
    )
    flags.DEFINE_bool("debug", False, "Show tracebacks of errors.", flag_values=values)


def _environment_number(name: str) -> int | None:
    return int(os.environ[name]) if name in os.environ else None


def parse(argv: list[str]) -> flags.FlagValues:
    """Parses the command line.

    Raises:
      UserError: an unknown flag or config key, a value of the wrong type, a config file that is
        not there or does not know its arguments.
    """
    values = flags.FLAGS
    define_flags(values)
    try:
        rest = values(argv)
    except flags.Error as error:
        raise UserError(_one_line(error)) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"--config: {_one_line(error)}") from error
    except (FileNotFoundError, OSError) as error:
        raise UserError(f"--config: {error.filename}: {error.strerror}") from error
    if len(rest) > 1:
        raise UserError(f"unexpected arguments: {' '.join(rest[1:])}; all settings are flags")
    if not values.workdir:
        raise UserError("--workdir is missing; name a directory for the run")
    if values.job == "train" and values.config is None:
        raise UserError("--config is missing; for instance --config configs/mcl.py:digits")
    return values


def _one_line(error: BaseException) -> str:
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(str(text).split())


def run(values: flags.FlagValues) -> None:
    """Does the job that the flags ask for."""
    if values.distributed:
        _join_processes(values)
    # Imported late: jax must not be used before processes have joined.
    from kdjax import loop, workdirs
    from kdjax.metrics import say

    workdir = Path(values.workdir)
    if values.job == "train":
        metrics = loop.train(values.config, workdir)
    else:
        config = workdirs.read_config(workdir)
        if values.config is not None:  # data may have moved, devices may be others
            config = values.config
        metrics = loop.evaluate(config, workdir, values.checkpoint)
        say(f"{values.checkpoint} checkpoint: step {metrics['step']}, epoch {metrics['epoch']}")
    for name in [key.removesuffix("/top1") for key in metrics if key.endswith("/top1")]:
        top5 = metrics.get(f"{name}/top5")
        more = "" if top5 is None else f"  top-5 {100 * top5:6.2f} %"
        say(f"{name:<12}top-1 {100 * metrics[f'{name}/top1']:6.2f} %{more}")


def _join_processes(values: flags.FlagValues) -> None:
    import jax

    number = "?" if values.process_id is None else values.process_id
    print(f"process {number} of {values.num_processes or '?'} joins the others", flush=True)
    try:
        jax.distributed.initialize(values.coordinator, values.num_processes, values.process_id)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--distributed: {_one_line(error)}; see docs/pods.md for the flags to give"
        ) from error


def main(argv: list[str]) -> int:
    """Runs the command line; returns the exit status."""
    try:
        values = parse(argv)
    except UserError as error:
        if "--debug" in argv:
            raise
        print(f"error: {error}", file=sys.stderr)
        return _USAGE_STATUS
    try:
        run(values)
    except Exception as error:
        message = _user_message(error)
        if values.debug or message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return _USAGE_STATUS
    return 0


def _user_message(error: BaseException) -> str | None:
    """What to tell the user instead of a traceback, or None where the traceback is the message."""
    if isinstance(error, UserError):
        return str(error)
    cause: BaseException | None = error
    while cause is not None:
        full = isinstance(cause, OSError) and cause.errno == errno.ENOSPC
        if full or os.strerror(errno.ENOSPC) in str(cause):
            return (
                "the disk of --workdir is full; make room and run the same command again: it goes "
                "on from the last finished checkpoint"
            )
        cause = cause.__cause__ or cause.__context__
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv))
