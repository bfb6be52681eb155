"""The command line: `python -m kdjax.main --config configs/mcl.py --workdir runs/mcl`."""

import ast
import contextlib
import errno
import functools
import logging
import os
import sys

from absl import flags

from kdjax.errors import UserError
from kdjax.jobs import JOBS

_USAGE_STATUS = 2
_FULL = (errno.ENOSPC, errno.EDQUOT)


_JOB_HELP = (
    "train: train, going on from the workdir's latest checkpoint. evaluate: evaluate a run's "
    "checkpoint or an imported network on the whole test split. show-batch: draw what the "
    "networks of --config are shown at --step, augmented and mixed, with labels, as batch.png in "
    "--workdir, over the one that is there; nothing is trained. networks: list all networks. "
    "import-torch: write --torch_file as a checkpoint of --network to --workdir, to evaluate it "
    "or to teach. export-torch: write a trained network of --workdir to --torch_file. compact: "
    "write a network of --workdir without its zero filters to --output, and say what that saves. "
    "export: write a trained network of --workdir for deployment, each file read again and "
    "compared."
)


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Adds the command line's flags to `values`; `argv` says which settings are overridden."""
    from ml_collections import config_flags

    config_flags.DEFINE_config_file(
        "config",
        None,
        "A file of configs/, FILE.py or FILE.py:ARGUMENTS; --config.KEY=VALUE changes a setting.",
        flag_values=values,
        sys_argv=argv,
    )
    flags.DEFINE_string("workdir", None, "Directory of the run.", flag_values=values)
    flags.DEFINE_enum("job", "train", list(JOBS), _JOB_HELP, flag_values=values)
    flags.DEFINE_enum(
        "checkpoint", "best", ["best", "latest"], "Which one of a run.", flag_values=values
    )
    flags.DEFINE_integer(
        "step", 0, "Which one --job=show-batch draws, from 0.", lower_bound=0, flag_values=values
    )
    flags.DEFINE_integer(
        "pictures", 72, "The most that --job=show-batch draws.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_string("network", None, "Network of --job=import-torch.", flag_values=values)
    flags.DEFINE_string(
        "torch_file",
        None,
        "PyTorch checkpoint: .pth, .pth.tar or .safetensors.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "torch_part",
        "",
        "Import, or export, only the arrays under this name: 'backbone' for the network inside one "
        "with auxiliary classifiers.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "member", "network_0", "Which network of a run to compact or export.", flag_values=values
    )
    flags.DEFINE_string(
        "output",
        None,
        "Directory that --job=compact makes, or that --job=export writes to; the latter's default "
        "is WORKDIR/export.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "formats",
        ["stablehlo", "onnx", "torch"],
        "What --job=export writes. stablehlo, onnx: any number of images to logits. torch: a state "
        "dict.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "export_input",
        "pixels",
        ["pixels", "normalized"],
        "What the functions of --job=export take: pixels in [0, 1], which they normalise, or "
        "images that are normalised already.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "image_size",
        0,
        "Side of the images of --job=export; 0: as in the run's data, or what an imported network "
        "was made for.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "multiple",
        1,
        "What --job=compact rounds numbers of filters up to multiples of, by zero filters.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "recalibrate",
        0,
        "Where not 0, --job=compact removes BatchNorm with the filters, as the papers do, and "
        "estimates its statistics anew from so many training batches: outputs change.",
        lower_bound=0,
        flag_values=values,
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
    flags.DEFINE_bool("help", False, "Show this.", flag_values=values)


def _environment_number(name: str) -> int | None:
    return int(os.environ[name]) if name in os.environ else None


def parse(argv: list[str]) -> flags.FlagValues:
    """Parses the command line.

    Raises:
      UserError: an unknown flag or config key, a value of the wrong type, a config file that is
        not there, does not know its arguments or fails.
    """
    values = flags.FlagValues()  # of its own: the libraries' flags are no business of the user's
    define_flags(values, argv)
    try:
        rest = values(argv)
        if values.config is not None:
            values.config.lock()  # a file that could not be read fails at its first use only
    except Exception as error:  # a config file is a program: it may raise anything
        raise UserError(_parse_message(error)) from error
    if values.help:
        return values
    if len(rest) > 1:
        raise UserError(f"unexpected arguments: {' '.join(rest[1:])}; all settings are flags")
    if not values.workdir and values.job != "networks":
        raise UserError("--workdir is missing; name a directory for the run")
    if values.job in ("train", "show-batch") and values.config is None:
        raise UserError("--config is missing; for instance --config configs/mcl.py:digits")
    return values


def _parse_message(error: BaseException) -> str:
    """One line about a command line or config file that cannot be used."""
    cause = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, UserError):
        return str(cause)
    if isinstance(error, flags.Error) and "Traceback" not in str(error):
        return _one_line(error)
    if isinstance(cause, OSError):
        reason = str(cause).splitlines()[-1].strip()
        return f"--config: {reason}; name a file such as configs/mcl.py"
    if isinstance(error, (AttributeError, KeyError)) and "get_config" not in str(error):
        return f"--config: no such setting: {_unquoted(error)}; kdjax/config.py has them all"
    return f"--config: the file fails: {type(cause).__name__}: {_one_line(cause)}; see --debug"


def _unquoted(error: BaseException) -> str:
    """The text of a `KeyError`, or of an error made from one, without Python's quotes."""
    text = str(error.args[0]) if error.args else str(error)
    with contextlib.suppress(ValueError, SyntaxError):
        text = str(ast.literal_eval(text))
    return " ".join(text.split())


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def run(values: flags.FlagValues) -> None:
    """Does the job that the flags ask for."""
    if values.distributed:
        _join_processes(values)
    JOBS[values.job](values)  # jobs import jax late: not before processes have joined


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
    debug = "--debug" in argv
    if not debug:
        _quiet_libraries()
    try:
        values = parse(argv)
        if values.help:
            print(f"{__doc__}\n{values.get_help()}")
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
