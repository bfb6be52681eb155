"""The command line: `python -m kdjax.main --config configs/mcl.py --workdir runs/mcl`."""

import errno
import functools
import logging
import os
import sys

from absl import flags

from kdjax.cli.command_line import help_text, one_line, parse
from kdjax.cli.jobs import JOBS
from kdjax.errors import UserError

_USAGE_STATUS = 2
_FULL = (errno.ENOSPC, errno.EDQUOT)


def run(values: flags.FlagValues) -> None:
    """Does the job that the flags ask for."""
    if values.distributed:
        _join_processes(values)
    JOBS[values.job].run(values)  # jobs import jax late: not before processes have joined


def _join_processes(values: flags.FlagValues) -> None:
    import jax

    number = "?" if values.process_id is None else values.process_id
    print(f"process {number} of {values.num_processes or '?'} joins the others", flush=True)
    try:
        jax.distributed.initialize(values.coordinator, values.num_processes, values.process_id)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--distributed: {one_line(error)}; see docs/pods.md for the flags to give"
        ) from error


def main(argv: list[str]) -> int:
    """Runs the command line; returns the exit status."""
    debug = "--debug" in argv
    if not debug:
        _quiet_libraries()
    try:
        values = parse(argv)
        if values.help:
            print(f"{__doc__}\n\n{help_text()}")
        else:
            run(values)
    except Exception as error:
        message = _user_message(error)
        if debug or message is None:
            raise
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
        return _USAGE_STATUS
    return 0


def _quiet_libraries() -> None:
    """Keeps from the terminal what the libraries say besides raising an error.

    Their warnings concern their callers, that is us. A checkpoint that cannot be written or read is
    logged with its traceback by every thread that takes part, before orbax raises it where we see
    it; and the threads that come late find the event loop closed.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_has_no_traceback)
    sys.unraisablehook = functools.partial(_except_closed_loops, sys.unraisablehook)


def _except_closed_loops(show, unraisable) -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
        show(unraisable)


def _has_no_traceback(record: logging.LogRecord) -> bool:
    return not record.exc_info


def _user_message(error: BaseException) -> str | None:
    """What to tell the user instead of a traceback, or None where the traceback is the message."""
    if isinstance(error, UserError):
        return str(error)
    cause: BaseException | None = error
    while cause is not None:
        full = isinstance(cause, OSError) and cause.errno in _FULL
        if full or any(os.strerror(number) in str(cause) for number in _FULL):
            return (
                "the disk of --workdir is full; make room and run the same command again: it goes "
                "on from the last finished checkpoint"
            )
        cause = cause.__cause__ or cause.__context__
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv))
