"""The command line of kdjax with the network `tiny`: `python -m tests.tiny_runs.command_line`."""

import sys

from kdjax.main import main
from tests.tiny_runs import networks  # noqa: F401

if __name__ == "__main__":
    sys.exit(main(sys.argv))
