"""`python -m kdjax`: the command line, as `python -m kdjax.main`."""

from kdjax.main import command

if __name__ == "__main__":
    command()
