"""The jobs of the command line. A file per job declares its flags and registers it."""

from kdjax.cli.jobs import (
    cka,
    compact,
    evaluate,
    export,
    few_shot,
    grad_cam,
    import_torch,
    knn,
    losses,
    methods,
    networks,
    predict,
    report,
    show_batch,
    show_predictions,
    t_sne,
    train,
)
from kdjax.cli.jobs.base import JOBS, Job

__all__ = [
    "JOBS",
    "Job",
    "cka",
    "compact",
    "evaluate",
    "export",
    "few_shot",
    "grad_cam",
    "import_torch",
    "knn",
    "losses",
    "methods",
    "networks",
    "predict",
    "report",
    "show_batch",
    "show_predictions",
    "t_sne",
    "train",
]
