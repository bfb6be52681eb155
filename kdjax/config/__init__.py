"""The configuration that all of `configs/` start from, and what belongs to a frozen one."""

from kdjax.config.arguments import fields, method_of, pair, size_of, start_from, use_data
from kdjax.config.contrastive_runs import memory_run, self_supervised_run
from kdjax.config.defaults import base, check_values, validate
from kdjax.config.own_data import fitted, images_per_class
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
    "fitted",
    "from_json",
    "images_per_class",
    "memory_run",
    "method_of",
    "pair",
    "plain",
    "pruning_run",
    "read",
    "self_distillation_run",
    "self_supervised_run",
    "size_of",
    "start_from",
    "use_data",
    "validate",
]
