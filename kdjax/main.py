"""`python -m kdjax.main`: the command line, `kdjax.cli.main`."""

import sys

from kdjax.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main(sys.argv))
