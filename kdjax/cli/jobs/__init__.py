"""The jobs of the command line: one file each, which declares its flags and registers it."""

from kdjax.cli.jobs import (
    compact,
    evaluate,
    export,
    import_torch,
    methods,
    networks,
    show_batch,
    show_predictions,
    train,
)
from kdjax.cli.jobs.base import JOBS, Job

__all__ = [
    "JOBS",
    "Job",
    "compact",
    "evaluate",
    "export",
    "import_torch",
    "methods",
    "networks",
    "show_batch",
    "show_predictions",
    "train",
]
