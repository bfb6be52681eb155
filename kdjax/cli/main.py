"""The command line: `python -m kdjax.main --config configs/mcl.py --workdir runs/mcl`."""

import functools
import io
import logging
import os
import sys
from collections.abc import Callable

from absl import flags

import kdjax
from kdjax.cli import compiled, setting_help
from kdjax.cli.command_line import help_text, one_line, parse
from kdjax.cli.jobs import JOBS
from kdjax.errors import UserError
from kdjax.runs import files, freed_memory, signals
from kdjax.runs.console import OutputClosed, print_line

_USAGE_STATUS = 2


def run(values: flags.FlagValues) -> None:
    """Runs the job of `--job`, after joining the other processes with `--distributed`."""
    freed_memory.keep(os.environ)
    if values.distributed:
        _join_processes(values)
    if values.compile_cache:
        compiled.keep()
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
    """Runs the command line; returns the exit status.

    A `UserError` ends it with one line and the status 2, a signal with one line and the status 128
    plus the signal's number.

    Args:
      argv: the program's name and its arguments.

    Raises:
      Exception: any other error, and with `--debug` every error, for its traceback.
    """
    debug = "--debug" in argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names that the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    if not debug:
        _quiet_libraries()
    try:
        with signals.handled(signals.stop):
            values = parse(argv)
            if values.help:
                print_line(f"{__doc__}\n\n{help_text()}")
                if values.config is not None:
                    print_line(f"\n{setting_help.text(values.config)}")
            elif values.version:
                print_line(f"kdjax {kdjax.__version__}")
            else:
                run(values)
    except signals.Stopped as error:
        if not error.told:
            print(error.line, file=sys.stderr)
        return error.code
    except OutputClosed as error:
        return error.code
    except Exception as error:
        message = _user_message(error)
        if debug or message is None:
            raise
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
        return _USAGE_STATUS
    return 0


def _quiet_libraries() -> None:
    """Suppresses the libraries' log messages and the tracebacks of their threads.

    Their warnings concern kdjax, not its user. When a checkpoint cannot be written or read, each of
    orbax's threads logs the error with its traceback before orbax raises it in the main thread, and
    threads that finish later report a closed event loop.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_has_no_traceback)
    sys.unraisablehook = functools.partial(_except_closed_loops, sys.unraisablehook)


def _except_closed_loops(
    show: Callable[["sys.UnraisableHookArgs"], object], unraisable: "sys.UnraisableHookArgs"
) -> None:
    if isinstance(unraisable.exc_value, signals.Stopped):  # raised where Python ignores exceptions
        signals.end_at_once(unraisable.exc_value.number)
    if str(unraisable.exc_value) != "Event loop is closed":
        show(unraisable)


def _has_no_traceback(record: logging.LogRecord) -> bool:
    return not record.exc_info


def _user_message(error: BaseException) -> str | None:
    """The message that replaces an error's traceback, or None to show the traceback."""
    if isinstance(error, UserError):
        return str(error)
    if files.is_full(error):
        return f"the disk of --workdir is full; {files.WAY_OUT}"
    reason = files.refusal(error, files.UNWRITABLE)
    return None if reason is None else f"a file of --workdir cannot be written: {reason}"


if __name__ == "__main__":
    sys.exit(main(sys.argv))
