"""The papers' tables as runnable sweeps, the benchmark, and their results."""
