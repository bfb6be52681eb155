"""`python -m kdjax.sweep`."""

import sys

from kdjax.main import import_path


def one_flag_each(argv: list[str]) -> list[str]:
    """The command line with `--config A B` as `--config=A --config=B`."""
    flags, of_config = [], False
    for argument in argv:
        if argument.startswith("-"):
            of_config = argument == "--config"
        if argument != "--config":
            is_value = of_config and not argument.startswith("-")
            flags.append(f"--config={argument}" if is_value else argument)
    return flags


if __name__ == "__main__":
    if not sys.flags.safe_path:
        sys.path[:] = import_path(sys.path, one_flag_each(sys.argv))
    from kdjax.cli.endings import run_and_exit  # late: the import path is set before
    from kdjax.sweep.command_line import main

    run_and_exit(main, sys.argv)
