"""The configuration that all of `configs/` start from, and what belongs to a frozen one."""

from kdjax.config.arguments import fields, method_of, pair, start_from, use_data
from kdjax.config.contrastive_runs import memory_run, self_supervised_run
from kdjax.config.defaults import base, check_values, validate
from kdjax.config.paper_runs import cifar_run, distillation_run, pruning_run, self_distillation_run
from kdjax.config.reading import from_json, read
from kdjax.config.saved import RESUMABLE, completed, differences, plain

__all__ = [
    "RESUMABLE",
    "base",
    "check_values",
    "cifar_run",
    "completed",
    "differences",
    "distillation_run",
    "fields",
    "from_json",
    "memory_run",
    "method_of",
    "pair",
    "plain",
    "pruning_run",
    "read",
    "self_distillation_run",
    "self_supervised_run",
    "start_from",
    "use_data",
    "validate",
]
