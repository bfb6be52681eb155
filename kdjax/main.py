"""`kdjax` and `python -m kdjax.main`: the command line, `kdjax.cli.main`."""

import gc
import os
import sys
from typing import NoReturn

__all__ = ["collect_seldom", "command", "main"]

_NEW_OBJECTS = 50_000  # between collections of garbage; Python's default is 700


def main(argv: list[str]) -> int:
    """Runs the command line; returns the exit status."""
    from kdjax.cli.main import main  # late: the import path is set before libraries are imported

    return main(argv)


def import_path(path: list[str], argv: list[str]) -> list[str]:
    """`sys.path` without the working directory, which `python -m` puts first.

    The working directory may be one of data, whose files must not stand in for modules. It stays
    first where kdjax itself is imported from it, and comes last where the config file lies in it,
    so that the file may import its neighbors; as does the directory of the config file.

    Args:
      path: `sys.path`.
      argv: the command line, for `--config`.
    """
    here, package = os.getcwd(), os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if here != package and path and os.path.abspath(path[0]) == here:
        path = path[1:]
    for flag, value in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, same = flag.partition("=")
        if name in ("--config", "-config"):
            file = (same if equals else value).partition(":")[0]
            if file.isidentifier() and not os.path.isfile(file):
                continue  # the name of an installed config
            file = os.path.abspath(file)
            inside = [here] if file.startswith(here + os.sep) else []
            path = [*path, *inside, os.path.dirname(file)]
    return path


def collect_seldom() -> None:
    """Has Python collect cyclic garbage less often: imports and traces make objects that stay."""
    gc.set_threshold(_NEW_OBJECTS)


def command() -> NoReturn:
    """Runs the command line of this process and exits with its status."""
    collect_seldom()
    if not sys.flags.safe_path:
        sys.path[:] = import_path(sys.path, sys.argv)
    from kdjax.cli.endings import run_and_exit  # late, as above

    run_and_exit(main, sys.argv)


if __name__ == "__main__":
    command()
