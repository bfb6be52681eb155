"""The training step of every method: `steps`."""

from experiments.benchmark import steps

if __name__ == "__main__":
    raise SystemExit(steps.main())
