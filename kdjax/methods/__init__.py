"""Training methods: networks and losses made into three pure functions each.

`METHODS` holds what is registered. Importing this registers kdjax's own methods.
"""

from kdjax.methods import hssakd_entries
from kdjax.methods.base import CONSTANTS, MEMORY, EpochReport, Inputs, Method
from kdjax.methods.baselines import distillation, online, self_distillation
from kdjax.methods.baselines.cross_entropy import cross_entropy
from kdjax.methods.baselines.distillation import (
    Baseline,
    distill,
    register_baseline,
    register_teacher_loss,
)
from kdjax.methods.baselines.dml import dml
from kdjax.methods.baselines.online import cl_ilr, mcl_okd, okddip, one
from kdjax.methods.baselines.self_distillation import register_loss
from kdjax.methods.create import (
    create,
    needs_teacher,
    networks,
    objects_augmentation,
)
from kdjax.methods.detection import detection
from kdjax.methods.hssakd import hssakd_online, hssakd_student, hssakd_teacher
from kdjax.methods.linear_probe import linear_probe
from kdjax.methods.lmcl import lmcl
from kdjax.methods.mcl import mcl
from kdjax.methods.mcl_memory import mcl_memory
from kdjax.methods.mixskd import mixskd
from kdjax.methods.registry import METHODS, DataNeed, register, use
from kdjax.methods.segmentation import segmentation
from kdjax.methods.self_supervised import moco, simclr
from kdjax.methods.starting_networks import starting_compactions, starting_normalization

__all__ = [
    "CONSTANTS",
    "MEMORY",
    "METHODS",
    "Baseline",
    "DataNeed",
    "EpochReport",
    "Inputs",
    "Method",
    "cl_ilr",
    "create",
    "cross_entropy",
    "detection",
    "distill",
    "distillation",
    "dml",
    "hssakd_entries",
    "hssakd_online",
    "hssakd_student",
    "hssakd_teacher",
    "linear_probe",
    "lmcl",
    "mcl",
    "mcl_memory",
    "mcl_okd",
    "mixskd",
    "moco",
    "needs_teacher",
    "networks",
    "objects_augmentation",
    "okddip",
    "one",
    "online",
    "register",
    "register_baseline",
    "register_loss",
    "register_teacher_loss",
    "segmentation",
    "self_distillation",
    "simclr",
    "starting_compactions",
    "starting_normalization",
    "use",
]
