"""The command line parsed: all flags, those that the job takes, and `--help`."""

from __future__ import annotations

import ast
import contextlib
import functools
import textwrap

from absl import flags

from kdjax import config_names
from kdjax.cli.flags import COMMON, CONFIG, Flag
from kdjax.cli.jobs import JOBS
from kdjax.data.regular_files import expanded
from kdjax.errors import UserError
from kdjax.runs.signals import Stopped

_WIDTH = 100


def define(values: flags.FlagValues, argv: list[str]) -> None:
    """Adds the flags of all jobs to `values`; `argv` says which settings are overridden."""
    from ml_collections import config_flags

    config_flags.DEFINE_config_file(
        CONFIG.name, None, CONFIG.help, flag_values=values, sys_argv=argv
    )
    every = (*COMMON, *(flag for job in JOBS.values() for flag in job.flags))
    for flag in dict.fromkeys(every):
        if flag is not CONFIG:
            flag.define(values)


_PATHS = ("workdir", "output", "torch_file", "images")


def parse(argv: list[str]) -> flags.FlagValues:
    """Parses the command line.

    Raises:
      UserError: an unknown flag or config key, a value of the wrong type, a config that is not
        there, does not know its arguments or fails; an unknown job, a flag of another job, or one
        that the job needs and was not given.
    """
    values = flags.FlagValues()  # of its own: the libraries' flags are no business of the user's
    for argument in argv:
        if not _is_text(argument):
            shown = argument.encode(errors="backslashreplace").decode()
            raise UserError(f"{shown} is not UTF-8; give files and directories names that are")
    argv = config_names.located(argv)
    try:
        define(values, argv)
        rest = values(argv)
        if values.config is not None:
            values.config.lock()  # a file that could not be read fails at its first use only
            _split_names(values)
    except Stopped:
        raise
    except SystemExit as error:
        raise UserError(
            f"--config: the file ends the program (status {error.code}) in place of giving a config"
        ) from error
    except Exception as error:  # a config file is a program: it may raise anything
        raise UserError(_message(error)) from error
    if values.help or values.version:
        return values
    if len(rest) > 1:
        raise UserError(f"unexpected arguments: {' '.join(rest[1:])}; all settings are flags")
    if values.config is not None and not values["job"].present:
        values["job"].value = values.config.get("job", "train")
    _check_flags(values)
    for name in _PATHS:  # shells leave the ~ of --workdir=~/run as it is
        if name in values and values[name].value:
            values[name].value = str(expanded(str(values[name].value), f"--{name}"))
    return values


def _split_names(values: flags.FlagValues) -> None:
    """Splits names that were given as `--config.KEY=a,b`, for settings that are tuples of names."""
    prefix = f"{CONFIG.name}."
    for name in values:
        if name.startswith(prefix) and values[name].present:
            path = name.removeprefix(prefix)
            value = functools.reduce(lambda node, key: node[key], path.split("."), values.config)
            if isinstance(value, tuple) and any(isinstance(x, str) and "," in x for x in value):
                names = tuple(part.strip() for text in value for part in str(text).split(","))
                values.config.update_from_flattened_dict({path: names})


def _is_text(argument: str) -> bool:
    """Whether an argument of the command line was UTF-8."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_flags(values: flags.FlagValues) -> None:
    """Raises `UserError` for flags that are another job's, or are missing."""
    job = JOBS[values.job]
    names = {flag.name for flag in (*COMMON, *job.flags)}
    for name in values:
        section = name.partition(".")[0]  # of --config.KEY
        if values[name].present and section not in names:
            owners = [name for name in JOBS if section in {f.name for f in JOBS[name].flags}]
            raise UserError(
                f"--{section} is a flag of --job={', '.join(owners)}; --job={values.job} does not "
                "take it"
            )
    for flag in job.required:
        if not values[flag.name].value:
            raise UserError(
                f"--{flag.name} is missing; {flag.hint}"
                if flag.hint
                else f"--job={values.job} needs --{flag.name}"
            )


def help_text() -> str:
    """What `--help` shows of flags: the common ones, and each job with its own."""
    lines = ["Flags of all jobs:", *_lines(COMMON)]
    for name, job in JOBS.items():
        lines += ["", *textwrap.wrap(f"--job={name}: {job.help}", _WIDTH), *_lines(job.flags)]
    return "\n".join(lines)


def _lines(declared: tuple[Flag, ...]) -> list[str]:
    lines = []
    for flag in declared:
        value = ",".join(flag.default) if flag.kind is list else flag.default
        default = "" if value in (None, "") else f" (default: {value})"
        choices = f" [{'|'.join(flag.choices)}]" if flag.choices else ""
        text = f"--{flag.name}{choices}: {flag.help}{default}"
        lines += textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="      ")
    return lines


def _message(error: BaseException) -> str:
    """One line about a command line or config file that cannot be used."""
    chain = [error]
    while following := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(following)
    cause = chain[-1]
    # The innermost: ml_collections raises errors of a file again, with their traceback as the text.
    if of_user := [cause for cause in chain if isinstance(cause, UserError)]:
        return str(of_user[-1])
    if isinstance(error, flags.Error) and "Traceback" not in str(error):
        return one_line(error)
    if isinstance(cause, OSError):
        reason, known = str(cause).splitlines()[-1].strip(), ", ".join(config_names.names())
        return f"--config: {reason}; name a file of yours, or one of {known}"
    if isinstance(error, (AttributeError, KeyError)) and "get_config" not in str(error):
        return (
            f"--config: no such setting: {_unquoted(error)}; kdjax/config/sections.py has them all"
        )
    return f"--config: the file fails: {type(cause).__name__}: {one_line(cause)}; see --debug"


def _unquoted(error: BaseException) -> str:
    """The text of a `KeyError`, or of an error made from one, without Python's quotes."""
    text = str(error.args[0]) if error.args else str(error)
    with contextlib.suppress(ValueError, SyntaxError):
        text = str(ast.literal_eval(text))
    return " ".join(text.split())


def one_line(error: BaseException) -> str:
    """The text of an error, on one line."""
    return " ".join(str(error).split())
