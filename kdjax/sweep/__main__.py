"""`python -m kdjax.sweep`."""

import sys

from kdjax.cli.endings import run_and_exit
from kdjax.sweep.command_line import main

if __name__ == "__main__":
    run_and_exit(main, sys.argv)
